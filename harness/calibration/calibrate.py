"""From a bundle, images and phones to measured limits with their provenance."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from devices.runner.source import LLAMA_COMMIT, SDIST_VERSION
from harness import bundle as bundles
from harness import contract as contracts
from harness.bundle import Bundle
from harness.calibration import machine
from harness.calibration.gates_file import gates_text
from harness.calibration.limits import Measured, differing, largest, limits
from harness.calibration.measuring import Bench, PairMeasured
from harness.calibration.setups import pairs
from harness.errors import BadInput
from harness.judgement import gating
from harness.judgement.gating import HopLimits
from harness.ladder import CHANGES, Change
from harness.running import phones, sides
from harness.running.planning import missing_packages
from harness.running.sides import Under

if TYPE_CHECKING:
    from harness.progress import Progress


@dataclass(frozen=True)
class CalibrationRequest:
    """What a user asks for. `phones`: serials, `all` or `virtual`."""

    bundle: Path
    images: str
    phones: tuple[str, ...] = ()
    quant: str = "q8_0"
    contract: str | None = None
    """A contract's name or file; None is the one the bundle was made for."""
    factor: float = 2.0
    """What is seen is multiplied with it: the next images may be worse than these."""
    most: int = 40
    """So many images at most."""
    looks: int = 6
    """So many of them are looked at layer by layer."""
    seed: int = 0


@dataclass(frozen=True)
class Calibration:
    """What was measured, and what it makes of the gates."""

    pairs: tuple[PairMeasured, ...]
    seen: dict[Change, Measured]
    """The worst of every hop that was measured."""
    limits: dict[Change, dict[str, float]]
    """Hop -> key of a gates file -> limit."""
    default: dict[Change, HopLimits]
    provenance: dict[str, str | int | float]

    @property
    def gates(self) -> str:
        """A gates file that holds what differs from the default, and the provenance."""
        return gates_text(differing(self.limits, self.default), self.provenance)


def calibrate(request: CalibrationRequest, progress: Progress) -> Calibration:
    """Run every pair of arms that should differ by rounding alone.

    Raises:
        BadInput: a file of the bundle is out of line, a hop is no clean one, or the images or the
            contract are wrong.
        ArmUnavailable: an arm cannot run here.
        DeviceError: a phone is not there or cannot go on.
    """
    _refuse_nonsense(request)
    bundle = bundles.load(request.bundle)
    contract = contracts.load(request.contract) if request.contract else bundle.contract
    _refuse_faults(bundle, {"f16", request.quant} | {"f32"} & set(bundle.quants))
    with phones.held(request.phones) as attached:
        wanted = pairs(
            contract,
            request.quant,
            bundle.quants,
            [phone.serial for phone in attached],
            with_torch="torch" not in missing_packages(),
        )
        prepared = sides.prepare(
            request.images,
            {"app": Under(contract, bundle)},
            request.seed,
            request.most,
            progress.track,
            skip_bad=False,
        )
        run_id = f"calibrate-{token_hex(6)}"
        bench = Bench(prepared.of("app"), attached, run_id, request.looks, progress)
        measured = tuple(bench.measure(pair) for pair in wanted)
        models = [phones.describe(phone).model for phone in attached]
    seen = {
        change: largest(one.seen for one in measured if change in one.pair.hops)
        for change in _measured_hops(measured)
    }
    gates = gating.load()
    return Calibration(
        pairs=measured,
        seen=seen,
        limits={change: limits(found, request.factor) for change, found in seen.items()},
        default={change: gates.hops.of(change) for change in CHANGES},
        provenance=_provenance(request, bundle, bench.images, measured, models),
    )


def _measured_hops(measured: Sequence[PairMeasured]) -> list[Change]:
    """Hops of which two arms of the ladder were compared; an arm against itself is not enough."""
    return [change for change in CHANGES if any(one.pair.hops == (change,) for one in measured)]


def _refuse_nonsense(request: CalibrationRequest) -> None:
    if request.factor < 1.0:
        raise BadInput(f"--factor {request.factor:g}: a limit below what clean arms differ by")
    if request.most < 1 or request.looks < 0:
        raise BadInput(f"--most {request.most} --looks {request.looks}: give at least one image")


def _refuse_faults(bundle: Bundle, quants: Collection[str]) -> None:
    faults = [fault for fault in bundles.verify(bundle, quants) if not fault.remark]
    if faults:
        first = faults[0]
        raise BadInput(
            f"{bundle.path / first.file}: {first.name}: {first.detail}; a tolerance measured on a "
            f"broken bundle would hide what is broken ({len(faults)} found)"
        )


def _provenance(
    request: CalibrationRequest,
    bundle: Bundle,
    images: int,
    measured: Sequence[PairMeasured],
    models: Sequence[str],
) -> dict[str, str | int | float]:
    return {
        "measured_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "bundle_sha256": bundle.sha256,
        "quant": request.quant,
        "images": images,
        "images_looked_at": min(request.looks, images),
        "seed": request.seed,
        "factor": request.factor,
        "host": machine.described(),
        "phones": ", ".join(models),
        "llama_cpp": f"{LLAMA_COMMIT} (llama-cpp-python {SDIST_VERSION})",
        "pairs": "; ".join(one.pair.name for one in measured),
    }
