"""Faults of files as causes: on which hop they come in, and what they explain there; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.comparison.blame import Blame
from harness.comparison.blame.causes import Cause, is_upstream
from harness.ladder import Hop, parse
from harness.records.inquiry import FileFault, Owner
from harness.records.observation import Who
from harness.stage import STAGES, Stage

_REACH: Final[Mapping[str, tuple[Stage, ...]]] = {
    "mmproj": ("tile", "pixels", "embed", "prefill", "decode", "label"),
    "text": ("tokens", "prefill", "decode", "label"),
}
"""What a half of a bundle can change at all."""
_OWN: Final[Mapping[str, Stage]] = {"mmproj": "embed", "text": "prefill"}
"""Where a change shows of which nothing more is known."""
_EXACT: Final[tuple[Stage, ...]] = ("tile", "tokens")
"""Stages told exactly: a fault that did not show there did nothing there."""
_LAYER: Final = re.compile(r"(?:vision|text) layer (\d+) (attention|ffn)")


@dataclass(frozen=True)
class FaultyFile:
    """One file with everything that is wrong in it, the earliest stage and layer first."""

    file: str
    half: str
    faults: tuple[FileFault, ...]

    @property
    def only_changed(self) -> bool:
        """True where nothing but the hash tells that it is not the file that was made."""
        return all(fault.kind == "hash" for fault in self.faults)

    @property
    def stage(self) -> Stage:
        """The first stage that can show it."""
        return _OWN[self.half] if self.only_changed else self.faults[0].stage


@dataclass(frozen=True)
class Explained:
    """A faulty file and the causes it explains: none where nothing that was measured shows it."""

    file: FaultyFile
    fault: FileFault
    """The one that explains the first of the causes best."""
    causes: tuple[Cause, ...]
    stage: Stage


def read_on(hop: Hop, faults: Sequence[FileFault], owners: Mapping[Who, Owner]) -> list[FaultyFile]:
    """The files with those faults that come in on the hop: the candidate reads them, the reference
    does not. Remarks are left out."""
    known = {_key(fault) for fault in _read(faults, hop.reference, hop.reference_phone, owners)}
    by_file: dict[tuple[str, str], list[FileFault]] = {}
    for fault in _read(faults, hop.candidate, hop.phone, owners):
        if _key(fault) not in known:
            by_file.setdefault((fault.half, fault.file), []).append(fault)
    return [
        FaultyFile(file, half, tuple(sorted(own, key=_order)))
        for (half, file), own in by_file.items()
    ]


def reaches(file: Explained, blame: Blame) -> bool:
    """Whether a faulty file can be why cases end without an answer."""
    there = blame.stage in _REACH[file.file.half]
    return there and (file.stage == blame.stage or is_upstream(file.stage, blame.stage))


def explained(files: Sequence[FaultyFile], causes: Sequence[Cause]) -> list[Explained]:
    """Each file with the causes it explains better than any other file.

    A file that is only known to have changed, and changed nothing, is left out.
    """
    of_file: dict[int, list[tuple[Stage, int, Cause]]] = {}
    for cause in causes:
        fits = [
            (fit, place, which)
            for place, file in enumerate(files)
            for which, fault in enumerate(file.faults)
            if (fit := _fit(fault, cause)) is not None
        ]
        if fits:
            _, place, which = min(fits)
            of_file.setdefault(place, []).append((cause.stage, which, cause))
    found = []
    for place, file in enumerate(files):
        if place in of_file:
            taken = sorted(of_file[place], key=lambda one: STAGES.index(one[0]))
            _, which, first = taken[0]
            fault = file.faults[which]
            stage = _stage(fault, first)
            found.append(Explained(file, fault, tuple(cause for *_, cause in taken), stage))
        elif not file.only_changed:
            found.append(Explained(file, file.faults[0], (), file.stage))
    return found


def _read(
    faults: Iterable[FileFault],
    arm: str,
    phone: str | None,
    owners: Mapping[Who, Owner],
) -> list[FileFault]:
    quant = parse(arm).quant
    owner = owners.get((arm, phone), "bundle")
    return [
        fault
        for fault in faults
        if (fault.quant, fault.owner) == (quant, owner) and not fault.remark
    ]


def _key(fault: FileFault) -> tuple[str, str, str]:
    return (fault.half, fault.kind, fault.name)


def _order(fault: FileFault) -> tuple[bool, int, float, bool]:
    """By stage and layer; what only says that the file changed comes last."""
    match = _LAYER.fullmatch(fault.layer or "")
    if match:
        depth = float(match[1])
    else:
        depth = -1.0 if (fault.layer or "").endswith("patches") else float("inf")
    ffn = match is not None and match[2] == "ffn"
    return (fault.kind == "hash", STAGES.index(fault.stage), depth, ffn)


def _fit(fault: FileFault, cause: Cause) -> int | None:
    """0 is best; None where the fault does not explain the cause."""
    if not cause.cases or cause.stage not in _REACH[fault.half]:
        return None
    if fault.kind == "hash":
        return None if is_upstream(_OWN[fault.half], cause.stage) else 4
    if fault.stage == cause.stage:
        layer = None if cause.fault is None else cause.fault.layer
        return 0 if fault.layer == layer else 1
    if cause.fault is not None and fault.kind == "tensor":
        return None  # a driven layer was given the reference's input: nothing before it matters
    if is_upstream(fault.stage, cause.stage):
        return 2
    # A tensor's effect begins where it is used, whereas a key may reach further than is known.
    return None if fault.kind == "tensor" else 3


def _stage(fault: FileFault, cause: Cause) -> Stage:
    """The earlier of the two, unless the fault's own stage would have shown it."""
    earlier = is_upstream(fault.stage, cause.stage) and fault.stage not in _EXACT
    return fault.stage if earlier and cause.fault is None and fault.kind != "hash" else cause.stage
