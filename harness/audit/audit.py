"""The audit: every source that was given, read and put beside the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.audit import rows as rows_of
from harness.audit.findings import Finding, Value
from harness.audit.house import House, Measured, Sources
from harness.audit.impact import Gauge
from harness.audit.rows import Missing, Row, Verdict
from harness.contract import Contract

if TYPE_CHECKING:
    from harness.progress import Progress


@dataclass(frozen=True)
class Audit:
    """What was read and what it comes to."""

    contract: Contract
    rows: tuple[Row, ...]
    measured: tuple[Measured, ...] = field(default=())
    """Worst first, all together last; empty unless it was asked for."""
    config_keys_left: int = 0
    """Settings of the trainer's configuration that say nothing about any aspect."""
    missing: tuple[Missing, ...] = ()
    """What has to be supplied before anything can be called aligned."""
    notes: tuple[str, ...] = ()
    """What is to be said of the app's files, one line each."""

    @property
    def verdict(self) -> Verdict:
        """MISALIGNED as soon as one row does not match, ALIGNED only where nothing is missing."""
        return rows_of.verdict(self.rows, self.missing)

    def as_json(self) -> dict[str, Any]:
        """The document of `--json`."""
        return {
            "verdict": self.verdict,
            "missing": [one.as_json() for one in self.missing],
            "rows": [row.as_json() for row in self.rows],
            "notes": list(self.notes),
        }


def audit(
    sources: Sources, contract: Contract, progress: Progress, measure_on: str | None = None
) -> Audit:
    """Read `sources` and hold them against `contract`.

    `measure_on`: images, as `harness.cases.load_cases` takes them, that every mismatch is measured
    on with the checkpoint.

    Raises:
        BadInput: a source that is not there or cannot be read, or nothing to audit.
        ArmUnavailable: a package that a source needs is missing.
    """
    house = House(sources, contract, progress)
    findings = list(house.findings())
    gauge = Gauge(contract, house.tokens, *house.pictures(measure_on))
    rows = [gauge.measured(row) for row in rows_of.rows(_overridden(findings), contract)]
    measured: list[Measured] = []
    if measure_on is not None:
        measured = house.measured(rows, measure_on)
        texts = {(one.aspect, one.found): one.impact.text for one in measured}
        rows = [_with_text(row, texts) for row in rows]
    lacking = rows_of.missing(rows, sources.sides)
    return Audit(
        contract,
        tuple(rows),
        tuple(measured),
        house.config_keys_left(),
        tuple(lacking),
        tuple(house.notes),
    )


def _with_text(row: Row, texts: dict[tuple[str | None, Value | None], str]) -> Row:
    said = texts.get((row.aspect, row.found)) if row.match is False else None
    if said is None:
        return row
    return replace(row, impact=f"{said}; {row.impact}" if row.impact else said)


def _overridden(findings: Sequence[Finding]) -> list[Finding]:
    """The default tiling of the checkpoint's processor counts only where nothing else sets it."""
    from harness.audit import checkpoint

    set_by = {
        finding.aspect: finding.side
        for finding in findings
        if finding.side in ("collator", "train-config") and finding.value is not None
    }
    kept = []
    for finding in findings:
        other = set_by.get(finding.aspect)
        if finding.where.endswith(checkpoint.DEFAULT_TILING) and other is not None:
            note = f"its default is {finding.value}, but the {other} decides"
            finding = replace(finding, value=None, note=note)
        kept.append(finding)
    return kept
