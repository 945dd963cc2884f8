"""Limits of driven layers measured on a clean bundle, as a gates file.

A calibration is a run whose driven layers set limits instead of being judged by them, so its hops
must differ by rounding alone. Floors need no calibration: every run measures them on its own model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from driftloop.harness import bundle as bundles
from driftloop.harness import cases
from driftloop.harness import contract as contracts
from driftloop.harness.bundle import Bundle
from driftloop.harness.comparison.driven import part_of
from driftloop.harness.comparison.hop import HopResult
from driftloop.harness.comparison.terms import Terms, terms
from driftloop.harness.errors import BadInput
from driftloop.harness.judgement.verdict import Verdict
from driftloop.harness.ladder import FLOAT_TYPES, Who
from driftloop.harness.progress import Progress
from driftloop.harness.records.record import RunRecord
from driftloop.harness.running.request import RunRequest
from driftloop.harness.running.run import evaluate
from driftloop.harness.stage import Stage
from driftloop.harness.tolerance import Part

_EXACT: Final[tuple[Stage, ...]] = ("resize", "tile", "pixels", "tokens", "label")
_LEAST: Final = 1e-6
"""No limit is below the resolution of float32."""
_HEAD: Final = """\
# Limits of driven layers measured by `driftloop calibrate`; everything else is as driftloop's own
# gates say. Pass it to a run with --gates.
"""

Numbers = tuple[float, float, float]
"""(error, gain, shift) as `DrivenLayer` has them."""


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
    """Limits are this many times the largest value seen: the next images may be worse."""
    drive: int = 6
    """Images at most, each driven on every hop."""
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One row of the table of driven limits."""

    key: str
    """As a gates file names it, for example `weights.q8_0`."""
    seen: dict[Part, Numbers]
    limits: dict[Part, Numbers]


@dataclass(frozen=True)
class Calibration:
    """The measured limits and their provenance."""

    rows: tuple[Row, ...]
    provenance: dict[str, str | int | float]

    @property
    def gates(self) -> str:
        """TOML: a table for each row, and where the numbers come from."""
        lines = [_HEAD]
        for row in self.rows:
            lines.append(f"[driven.{row.key}]")
            lines += [
                f"{part.replace(' ', '_')} = [{', '.join(f'{number:g}' for number in numbers)}]"
                for part, numbers in row.limits.items()
            ]
            lines.append("")
        lines.append("[calibration]")
        # A JSON string is a TOML string.
        lines += [f"{key} = {json.dumps(value)}" for key, value in self.provenance.items()]
        return "\n".join((*lines, ""))


def calibrate(request: CalibrationRequest, progress: Progress) -> Calibration:
    """Run the ladder, drive every hop, and turn the errors of its layers into limits.

    Raises:
        BadInput: the bundle's files or a hop are not clean, or the images are wrong.
        DeviceError: a phone is not there or cannot go on.
    """
    if request.factor < 1.0 or request.drive < 1:
        raise BadInput(
            f"--factor {request.factor:g} --drive {request.drive}: give a factor of at least 1 and "
            "at least one image"
        )
    bundle = bundles.load(request.bundle)
    contract = contracts.load(request.contract) if request.contract else bundle.contract
    _refuse_faults(bundle, {"f16", request.quant})
    found = cases.load_cases(request.images, contract.answer.labels, skip_bad=False)
    images = min(request.drive, len(found.cases))
    with TemporaryDirectory() as folder:
        run = RunRequest(
            bundle=request.bundle,
            images=request.images,
            out=Path(folder) / "run",
            phones=request.phones,
            contract=request.contract,
            quant=request.quant,
            seed=request.seed,
            fixed=images,
            drive=images,
        )
        outcome = evaluate(run, progress)
    _refuse_break(outcome.verdict)
    asked = terms(outcome.record)
    rows = [
        _row(hop, key, request.factor)
        for hop in outcome.verdict.hops
        if hop.driven and (key := _key(hop, asked)) is not None
    ]
    return Calibration(tuple(rows), _provenance(request, outcome.record, images))


def _refuse_faults(bundle: Bundle, quants: Collection[str]) -> None:
    faults = [fault for fault in bundles.verify(bundle, quants) if not fault.remark]
    if faults:
        first = faults[0]
        raise BadInput(
            f"{bundle.path / first.file}: {first.name}: {first.detail}; a limit measured on a "
            f"broken bundle would hide what is broken ({len(faults)} found)"
        )


def _refuse_break(verdict: Verdict) -> None:
    broken = [blame for blame in verdict.blames if blame.stage in _EXACT]
    if broken:
        raise BadInput(f"{broken[0].sentence} Fix it first: a limit measured on it would hide it")
    if verdict.undelivered:
        owing = verdict.undelivered[0]
        raise BadInput(f"{owing.arm}: {owing.why}; limits need arms that answer every image")


def _key(hop: HopResult, asked: Mapping[Who, Terms]) -> str | None:
    """The row that this hop measures; None for one that changes several things, or only inputs."""
    candidate = asked[hop.ends[1]]
    cache = candidate.runtime.cache_type_k
    rounds = cache not in FLOAT_TYPES
    keys: dict[str, str] = {
        "conversion": "conversion",
        "quantization": f"weights.{candidate.spec.quant}",
        "runtime": f"cache.{cache}" if rounds else "flash_attention",
        "platform": f"platform_cache.{cache}" if rounds else "platform",
    }
    return keys.get(hop.changes[0]) if len(hop.changes) == 1 else None


def _row(hop: HopResult, key: str, factor: float) -> Row:
    seen: dict[Part, Numbers] = {}
    for output in hop.driven:
        if (part := part_of(output.name)) is not None:
            error, gain, shift = seen.get(part, (0.0, 0.0, 0.0))
            seen[part] = (
                max(error, output.error),
                max(gain, abs(output.gain)),
                max(shift, abs(output.shift)),
            )
    limits: dict[Part, Numbers] = {
        part: (_limit(error, factor), _limit(gain, factor), _limit(shift, factor))
        for part, (error, gain, shift) in seen.items()
    }
    return Row(key, seen, limits)


def _limit(value: float, factor: float) -> float:
    """`value` times `factor`, rounded up to two digits."""
    if value == 0.0:
        return _LEAST
    wide = value * factor
    step = 10.0 ** (math.floor(math.log10(wide)) - 1)
    return max(_LEAST, math.ceil(wide / step) * step)


def _provenance(
    request: CalibrationRequest, record: RunRecord, images: int
) -> dict[str, str | int | float]:
    return {
        "measured_at": f"{record.started_at:%Y-%m-%dT%H:%M:%SZ}",
        "bundle_sha256": record.bundle.sha256,
        "quant": request.quant,
        "images": images,
        "seed": request.seed,
        "factor": request.factor,
        "phones": ", ".join(f"{phone.model} {phone.abi}" for phone in record.phones),
    }
