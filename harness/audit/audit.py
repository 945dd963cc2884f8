"""The audit: every source that was given, read once and put beside the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from driftloop.harness import checkpoint as checkpoints
from driftloop.harness.audit import gauge as gauges
from driftloop.harness.audit import rows as rows_of
from driftloop.harness.audit.aspects import changed
from driftloop.harness.audit.findings import DEFAULT_TILING, Finding, Side
from driftloop.harness.audit.rows import Missing, Row, Verdict
from driftloop.harness.contract import Contract
from driftloop.harness.errors import AuditError

if TYPE_CHECKING:
    from driftloop.harness.audit.checkpoint import Tokens
    from driftloop.harness.audit.impact import Impact
    from driftloop.harness.bundle import Bundle
    from driftloop.harness.progress import Progress

_SIDES: Final[dict[Side, str]] = {
    "collator": "collator",
    "dataset": "dataset",
    "train-config": "train_config",
    "checkpoint": "checkpoint",
    "bundle": "bundle",
    "app": "app_source",
}
"""Side -> field of `Sources`, the surest first: its value counts where several were found."""


@dataclass(frozen=True)
class Sources:
    """What an audit reads; at least one of the sides is given."""

    dataset: Path | None = None
    checkpoint: str | None = None
    bundle: Path | None = None
    train_config: Path | None = None
    collator: str | None = None
    """`module:callable` or `file.py:callable`."""
    app_source: Path | None = None
    originals: Path | None = None
    """The images that the dataset was made from."""
    update: bool = False
    """Whether the app's confirmed values are written anew."""


@dataclass(frozen=True)
class Audit:
    """What was read and what it comes to."""

    contract: Contract
    rows: tuple[Row, ...]
    measured: tuple[Impact, ...]
    """Worst first, all together last; empty unless it was asked for."""
    config_keys_left: int
    """Settings of the trainer's configuration that concern no aspect."""
    missing: tuple[Missing, ...]
    """What has to be supplied before anything can be called aligned."""
    notes: tuple[str, ...]
    """One line for each of the app's files that was not read, or not well."""

    @property
    def verdict(self) -> Verdict:
        """MISALIGNED as soon as one row does not match, ALIGNED only where nothing is missing."""
        return rows_of.verdict(self.rows, self.missing)

    def as_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "missing": [asdict(one) for one in self.missing],
            "rows": [row.as_json() for row in self.rows],
            "notes": list(self.notes),
        }


def audit(
    sources: Sources, contract: Contract, progress: Progress, measure_on: str | None = None
) -> Audit:
    """Read `sources` and compare them with `contract`.

    `measure_on`: images, as `harness.cases.load_cases` takes them, on which the checkpoint measures
    every mismatch.

    Raises:
        BadInput: a source that is not there or cannot be read, or nothing to audit.
        ArmUnavailable: a package that a source needs is missing.
    """
    sides = [side for side, name in _SIDES.items() if getattr(sources, name) is not None]
    if not sides:
        raise AuditError(
            "nothing to audit: give at least one of --dataset, --checkpoint, --bundle, "
            "--train-config, --collator and --app-source"
        )
    # What reads a side is imported with it: most audits are of one or two.
    bundle: Bundle | None = None
    tokens: Tokens | None = None
    if sources.bundle is not None:
        from driftloop.harness import bundle as bundles

        bundle = bundles.load(sources.bundle)
    if (named := sources.checkpoint or (bundle.checkpoint if bundle else None)) is not None:
        from driftloop.harness.audit import checkpoint as of_checkpoint

        tokens = of_checkpoint.Tokens(checkpoints.load(named))
    gauge = gauges.gauge(contract, tokens, measure_on, sources.originals)
    # Small and likely to be mistyped first: nobody waits for what is refused.
    found: list[Finding] = []
    config_keys_left, notes = 0, list[str]()
    if sources.train_config is not None:
        from driftloop.harness.audit import train_config

        found, config_keys_left = train_config.read(sources.train_config, contract, tokens)
    if sources.checkpoint is not None and tokens is not None:
        from driftloop.harness.audit import checkpoint as of_checkpoint

        found += of_checkpoint.findings(tokens, contract)
    if sources.app_source is not None:
        from driftloop.harness.audit import app

        of_app, notes = app.read(sources.app_source, contract, update=sources.update)
        found += of_app
    if sources.collator is not None:
        from driftloop.harness.audit import collator

        if tokens is None:
            said = "reading its batch takes a tokenizer; give --checkpoint or --bundle"
            raise AuditError(f"collator {sources.collator}: {said}")
        found += collator.findings(sources.collator, tokens, contract, sources.dataset)
    if sources.dataset is not None:
        from driftloop.harness.audit import dataset

        advance = progress.track("searching pixels")
        found += dataset.findings(sources.dataset, contract, advance, sources.originals, tokens)
    if bundle is not None and tokens is not None:
        from driftloop.harness.audit import bundle as of_bundle

        found += of_bundle.findings(bundle, tokens, contract)
    rows = rows_of.rows(_decided(found), contract)
    measured: list[Impact] = []
    if measure_on is not None:
        if tokens is None:
            raise AuditError("--measure runs the checkpoint; give --checkpoint or --bundle")
        measured = _measured(rows, contract, tokens, measure_on, progress)
    on_answers = {(one.change.aspect, one.change.found): one.text for one in measured if one.change}
    rows = [gauge.measured(row, on_answers) for row in rows]
    missing = tuple(rows_of.missing(rows, sides))
    return Audit(contract, tuple(rows), tuple(measured), config_keys_left, missing, tuple(notes))


def _decided(findings: list[Finding]) -> list[Finding]:
    """The default tiling of the checkpoint's processor counts only where nothing else sets it."""
    sets = {one.side for one in findings if one.aspect == "tiling" and one.value is not None}
    surer = sorted(sets & {"collator", "train-config"})
    return [
        replace(one, value=None, note=f"its default is {one.value}, but the {surer[0]} decides")
        if surer and one.where.endswith(DEFAULT_TILING)
        else one
        for one in findings
    ]


def _measured(
    rows: Sequence[Row], contract: Contract, tokens: Tokens, images: str, progress: Progress
) -> list[Impact]:
    """What each mismatch does to the checkpoint's answers on `images`, and last all of them
    together, of several values the surest side's."""
    from driftloop.harness.audit import impact
    from driftloop.harness.audit.impact import Change

    spelled = contract.model_copy(update={"pixels": contract.pixels.spelled_out})
    wrong = [row for row in rows if row.match is False]
    changes = [
        Change(aspect, value, other)
        for aspect, value in dict.fromkeys((row.aspect, row.value) for row in wrong)
        if value is not None and (other := changed(spelled, aspect, value)) is not None
    ]
    together = spelled
    by_side = sorted(wrong, key=lambda row: list(_SIDES).index(row.side))
    for aspect, value in {row.aspect: row.value for row in reversed(by_side)}.items():
        together = changed(together, aspect, value) or together
    last = together if len(changes) > 1 else None
    return impact.impacts(tokens.checkpoint, spelled, changes, images, progress, together=last)
