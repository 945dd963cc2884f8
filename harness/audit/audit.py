"""The audit: every source that was given, opened once, read, and put beside the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness import bundle as bundles
from harness import checkpoint as checkpoints
from harness.audit import bundle as of_bundle
from harness.audit import checkpoint, collator, dataset, impact, train_config
from harness.audit import rows as rows_of
from harness.audit.aspects import changed
from harness.audit.checkpoint import Tokens
from harness.audit.findings import Finding, Side
from harness.audit.impact import Change, Impact
from harness.audit.rows import Missing, Row, Verdict
from harness.contract import Contract
from harness.errors import AuditError

if TYPE_CHECKING:
    from harness.progress import Progress

_SIDES: Final[dict[Side, str]] = {
    "collator": "collator",
    "dataset": "dataset",
    "train-config": "train_config",
    "checkpoint": "checkpoint",
    "bundle": "bundle",
    "app": "app_source",
}
"""Side -> field of `Sources`. The surest first: whose value stands where several were found."""


@dataclass(frozen=True)
class Sources:
    """What an audit reads; at least one of these is given."""

    dataset: Path | None = None
    checkpoint: str | None = None
    """A folder, or a Hugging Face id."""
    bundle: Path | None = None
    train_config: Path | None = None
    collator: str | None = None
    """`module:callable` or `file.py:callable`."""
    app_source: Path | None = None
    originals: Path | None = None
    """The images that the dataset was made from."""
    update: bool = False
    """Whether the app's confirmed values are written anew."""

    @property
    def sides(self) -> list[Side]:
        """The sides that are given."""
        return [side for side, name in _SIDES.items() if getattr(self, name) is not None]


@dataclass(frozen=True)
class Audit:
    """What was read and what it comes to."""

    contract: Contract
    rows: tuple[Row, ...]
    measured: tuple[Impact, ...]
    """Worst first, all together last; empty unless it was asked for."""
    config_keys_left: int
    """Settings of the trainer's configuration that say nothing about any aspect."""
    missing: tuple[Missing, ...]
    """What has to be supplied before anything can be called aligned."""
    notes: tuple[str, ...]
    """What is to be said of the app's files, one line each."""

    @property
    def verdict(self) -> Verdict:
        """MISALIGNED as soon as one row does not match, ALIGNED only where nothing is missing."""
        return rows_of.verdict(self.rows, self.missing)

    def as_json(self) -> dict[str, Any]:
        """The document of `--json`."""
        return {
            "verdict": self.verdict,
            "missing": [asdict(one) for one in self.missing],
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
    if not sources.sides:
        raise AuditError(
            "nothing to audit: give at least one of --dataset, --checkpoint, --bundle, "
            "--train-config, --collator and --app-source"
        )
    bundle = bundles.load(sources.bundle) if sources.bundle is not None else None
    named = sources.checkpoint or (bundle.checkpoint if bundle else None)
    tokens = Tokens(checkpoints.load(named)) if named is not None else None
    gauge = impact.gauge(contract, tokens, measure_on, sources.originals)
    found, config_keys_left, notes = _read(sources, contract, progress, tokens)
    if bundle is not None and tokens is not None:
        found += of_bundle.findings(bundle, tokens, contract)
    rows = rows_of.rows(_decided(found), contract)
    measured: list[Impact] = []
    if measure_on is not None:
        if tokens is None:
            raise AuditError("--measure runs the checkpoint; give --checkpoint or --bundle")
        measured = _measured(rows, contract, tokens, measure_on, progress)
    on_answers = {(one.change.aspect, one.change.found): one.text for one in measured if one.change}
    rows = [gauge.measured(row, on_answers) for row in rows]
    missing = rows_of.missing(rows, sources.sides)
    return Audit(
        contract, tuple(rows), tuple(measured), config_keys_left, tuple(missing), tuple(notes)
    )


def _read(
    sources: Sources, contract: Contract, progress: Progress, tokens: Tokens | None
) -> tuple[list[Finding], int, list[str]]:
    """What every source but the bundle says, the settings that say nothing, and the app's notes.

    Small and likely to be mistyped first: nothing is waited for before it is refused.
    """
    found: list[Finding] = []
    config_keys_left = 0
    notes: list[str] = []
    if sources.train_config is not None:
        read = train_config.read(sources.train_config, contract, tokens)
        config_keys_left = read.keys_left
        found += read.findings
    if sources.checkpoint is not None and tokens is not None:
        found += checkpoint.findings(tokens, contract)
    if sources.app_source is not None:
        from harness.audit import app

        of_app, notes = app.read(sources.app_source, contract, update=sources.update)
        found += of_app
    if sources.collator is not None:
        if tokens is None:
            said = "reading its batch takes a tokenizer; give --checkpoint or --bundle"
            raise AuditError(f"collator {sources.collator}: {said}")
        found += collator.findings(sources.collator, tokens, contract, sources.dataset)
    if sources.dataset is not None:
        advance = progress.track("searching pixels")
        found += dataset.findings(
            sources.dataset, contract, advance, sources=sources.originals, tokens=tokens
        )
    return found, config_keys_left, notes


def _decided(findings: list[Finding]) -> list[Finding]:
    """The default tiling of the checkpoint's processor counts only where nothing else sets it."""
    told = {one.side for one in findings if one.aspect == "tiling" and one.value is not None}
    surer = sorted(told & {"collator", "train-config"})
    return [
        replace(one, value=None, note=f"its default is {one.value}, but the {surer[0]} decides")
        if surer and one.where.endswith(checkpoint.DEFAULT_TILING)
        else one
        for one in findings
    ]


def _measured(
    rows: Sequence[Row], contract: Contract, tokens: Tokens, images: str, progress: Progress
) -> list[Impact]:
    """What each mismatch does to the checkpoint's answers on `images`; all of them together last,
    of several values the surest side's."""
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
    return impact.impacts(
        tokens.checkpoint,
        spelled,
        changes,
        images,
        progress,
        together=together if len(changes) > 1 else None,
    )
