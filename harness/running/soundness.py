"""Faults in the files of a run's bundles, and the arms that cannot run because of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from driftloop.harness import bundle as bundles
from driftloop.harness.arms.base import Side
from driftloop.harness.bundle import Bundle
from driftloop.harness.ladder import ArmSpec, Role
from driftloop.harness.progress import Advance
from driftloop.harness.records.inquiry import FileFault, Owner


@dataclass(frozen=True)
class Soundness:
    """`unfit`: arms whose files llama.cpp cannot run, with the reason."""

    faults: tuple[FileFault, ...] = ()
    unfit: Mapping[str, str] = field(default_factory=dict)


def soundness(
    under: Mapping[Role, Side], specs: Sequence[ArmSpec], progress: Advance | None = None
) -> Soundness:
    """Of every file that the arms read; `progress` counts tensors, bundle by bundle. Raises
    BundleError where a bundle is no basis for any comparison: parts missing, unreadable, or of
    another model."""
    own = under["app"].bundle
    phones = under.get("phone", under["app"]).bundle
    if phones.path == own.path:
        return _of(own, specs, "bundle", progress)
    ours = _of(own, [spec for spec in specs if spec.on_host], "bundle", progress)
    on_phones = [spec for spec in specs if not spec.on_host]
    theirs = _of(phones, on_phones, "phone bundle", progress)
    known = {fault.file for fault in theirs.faults if not fault.remark}
    types = bundles.retyped(phones, own, _quants(on_phones), "phone bundle")
    others = (fault for fault in types if fault.file not in known)
    return Soundness((*ours.faults, *theirs.faults, *others), {**ours.unfit, **theirs.unfit})


def _of(
    bundle: Bundle, specs: Sequence[ArmSpec], owner: Owner, progress: Advance | None
) -> Soundness:
    quants = _quants(specs)
    unfit: dict[str, str] = {}
    try:
        found = [*bundles.verify(bundle, quants, progress)]
    except bundles.Misfit:
        # Each quant type alone, since the others may still be run.
        found = []
        for quant in quants:
            try:
                found += bundles.verify(bundle, [quant])
            except bundles.Misfit as misfit:
                found += misfit.faults
                unfit[quant] = str(misfit)
    return Soundness(
        tuple(fault.model_copy(update={"owner": owner}) for fault in found),
        {spec.name: unfit[spec.quant] for spec in specs if spec.quant in unfit},
    )


def _quants(specs: Sequence[ArmSpec]) -> list[str]:
    return sorted({spec.quant for spec in specs if spec.quant is not None})
