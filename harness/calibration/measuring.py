"""Both arms of a pair on the same images, and how far they are apart at every stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from harness.arms import build
from harness.arms.base import Arm, Given
from harness.calibration.limits import KEYS, Measured
from harness.calibration.setups import Pair, Setup
from harness.comparison.stages import CaseComparison, Stage, Tolerance, compare_case
from harness.errors import ArmUnavailable, BadInput
from harness.judgement import stats
from harness.records.observation import Observation
from harness.running.closeups import Closeups
from harness.running.sides import Side

if TYPE_CHECKING:
    from devices.phone import Phone
    from harness.progress import Progress

_WITHOUT_LIMITS: Final = Tolerance(**{field.name: math.inf for field in fields(Tolerance)})
_NEVER: Final[tuple[Stage, ...]] = ("resize", "tile", "tokens")
"""Stages that have no tolerance: whatever differs there is no rounding."""
_PERCENTILE: Final = 0.999


@dataclass(frozen=True)
class PairMeasured:
    """One pair with what it came to."""

    pair: Pair
    images: int
    looks: int
    seen: Measured


class Bench:
    """The images, and everything an arm of a setup is made of."""

    def __init__(
        self, side: Side, phones: Sequence[Phone], run_id: str, looks: int, progress: Progress
    ) -> None:
        """`looks`: so many of the images are looked at layer by layer."""
        self._side = side
        self._images = [image for image in side.images.values() if image.canary is None]
        self._phones = {phone.serial: phone for phone in phones}
        self._run_id = run_id
        self._looks = looks
        self._progress = progress
        self._answers: dict[str, list[Observation]] = {}

    @property
    def images(self) -> int:
        """How many every arm answers."""
        return len(self._images)

    def measure(self, pair: Pair) -> PairMeasured:
        """Run what has not been run yet, and compare.

        Raises:
            BadInput: the two differ in what no rounding explains.
            ArmUnavailable: an arm cannot run here, or cannot answer an image.
            DeviceError: a phone cannot go on.
        """
        answers = (self._answered(pair.reference), self._answered(pair.candidate))
        cases = [
            compare_case(ours, theirs, _WITHOUT_LIMITS)
            for ours, theirs in zip(*answers, strict=True)
        ]
        for case in cases:
            _refuse_break(pair, case)
        layers = list(self._layers(pair))
        seen = Measured(
            pixels=_largest(case.distances.get("pixels") for case in cases),
            embed=_largest(case.distances.get("embed") for case in cases),
            prefill=_largest(case.distances.get("prefill") for case in cases),
            vision_layer=_largest(away for name, away in layers if name.startswith("vision ")),
            text_layer=_largest(away for name, away in layers if name.startswith("text ")),
            label_logprob=_largest(
                away for case in cases for away in case.label_logprob_differences.values()
            ),
            margin=_margin_spread(cases),
        )
        _refuse_infinite(pair, seen)
        return PairMeasured(pair, len(cases), min(self._looks, self.images), seen)

    def _answered(self, setup: Setup) -> list[Observation]:
        if setup.name not in self._answers:
            advance = self._progress.track(setup.name)
            advance(0, self.images)
            kept: list[Observation] = []
            for done, seen in enumerate(self._arm(setup).observe(self._images), start=1):
                _refuse_error(setup, seen)
                kept.append(seen)
                advance(done, self.images)
            self._answers[setup.name] = sorted(kept, key=lambda one: (one.session, one.position))
        return self._answers[setup.name]

    def _layers(self, pair: Pair) -> Iterator[tuple[str, float]]:
        """(layer, distance) of some images. One image's tensors at a time: they may be large."""
        images = [(image, Given()) for image in self._images[: self._looks]]
        if not images:
            return
        advance = self._progress.track(f"layers: {pair.name}")
        advance(0, len(images))
        setups = (pair.reference, pair.candidate)
        with TemporaryDirectory() as folder:
            closeups = Closeups(Path(folder))
            both = zip(*(self._arm(setup).look(images) for setup in setups), strict=True)
            for done, looks in enumerate(both, start=1):
                slots = []
                for setup, look in zip(setups, looks, strict=True):
                    _refuse_error(setup, look.observation)
                    closeups.keep(look)
                    slots.append(look.observation.slot)
                for layer in closeups.distances(*slots):
                    yield layer.name, layer.distance
                for slot in slots:
                    closeups.path(slot).unlink()
                advance(done, len(images))

    def _arm(self, setup: Setup) -> Arm:
        side = self._side
        if setup.phone is not None:
            from harness.arms.phone import PhoneArm

            phone = self._phones[setup.phone]
            return PhoneArm(
                setup.spec, side.bundle, side.contract, setup.runtime, phone, self._run_id,
                self._progress,
            )  # fmt: skip
        if setup.spec.quant is None or not setup.variant:
            return build.host_arm(setup.spec, side)
        from harness.arms.desktop import DesktopArm

        return DesktopArm(side.bundle, setup.spec.quant, setup.runtime, side.contract, setup.name)


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _margin_spread(cases: Sequence[CaseComparison]) -> float | None:
    moved = [
        abs(case.reference_margin - case.candidate_margin)
        for case in cases
        if case.reference_margin is not None and case.candidate_margin is not None
    ]
    return stats.quantile(moved, _PERCENTILE) if moved else None


def _refuse_error(setup: Setup, seen: Observation) -> None:
    if seen.error is not None:
        raise ArmUnavailable(
            f"{setup.name}: {seen.case_id}: {seen.error.kind}: {seen.error.detail}; "
            "tolerances need arms that answer every image"
        )


def _refuse_break(pair: Pair, case: CaseComparison) -> None:
    """A tolerance measured over a break would hide it."""
    if broken := [stage for stage in case.beyond if stage in _NEVER]:
        raise BadInput(
            f"{pair.name}: {case.case_id} differs in {', '.join(broken)}, which is no rounding; "
            "see with `driftloop run` what is wrong before measuring tolerances"
        )


def _refuse_infinite(pair: Pair, seen: Measured) -> None:
    for measure in KEYS:
        value = seen.of(measure)
        if value is not None and not math.isfinite(value):
            raise BadInput(
                f"{pair.name}: {measure} differs in shape or is not finite, which is no rounding; "
                "see with `driftloop run` what is wrong before measuring tolerances"
            )
