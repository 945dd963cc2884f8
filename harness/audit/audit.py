"""The audit: every source that was given, opened once, read, and put beside the contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness import bundle as bundles
from harness import checkpoint as checkpoints
from harness.audit import bundle, checkpoint, collator, dataset, impact, train_config
from harness.audit import rows as rows_of
from harness.audit.aspects import changed
from harness.audit.findings import Finding, Side
from harness.audit.impact import Change, Impact
from harness.audit.rows import Missing, Row, Verdict
from harness.audit.tokens import Tokens
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
    opened = _Opened(sources, contract, progress)
    rows = rows_of.rows(_decided(list(opened.findings())), contract)
    measured: list[Impact] = []
    if measure_on is not None:
        if opened.tokens is None:
            raise AuditError("--measure runs the checkpoint; give --checkpoint or --bundle")
        measured = _measured(rows, contract, opened.tokens, measure_on, progress)
    gauge = impact.gauge(contract, opened.tokens, measure_on, sources.originals)
    on_answers = {(one.change.aspect, one.change.found): one.text for one in measured if one.change}
    rows = [gauge.measured(row, on_answers) for row in rows]
    return Audit(
        contract,
        tuple(rows),
        tuple(measured),
        opened.config_keys_left,
        tuple(rows_of.missing(rows, sources.sides)),
        tuple(opened.notes),
    )


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


@dataclass
class _Opened:
    """The sources, opened once each."""

    sources: Sources
    contract: Contract
    progress: Progress
    notes: list[str] = field(default_factory=list)
    config_keys_left: int = 0

    @cached_property
    def bundle(self) -> bundles.Bundle | None:
        return bundles.load(self.sources.bundle) if self.sources.bundle is not None else None

    @cached_property
    def tokens(self) -> Tokens | None:
        """Of the checkpoint that was given, else of the one in the bundle."""
        if self.sources.checkpoint is not None:
            return Tokens(checkpoints.load(self.sources.checkpoint))
        return Tokens(checkpoints.load(self.bundle.checkpoint)) if self.bundle else None

    def findings(self) -> Iterator[Finding]:
        """Everything that the sources say."""
        sources, contract = self.sources, self.contract
        # Small and likely to be mistyped first: nothing is waited for before it is refused.
        if sources.train_config is not None:
            read = train_config.read(sources.train_config, contract, self.tokens)
            self.config_keys_left = read.keys_left
            yield from read.findings
        if sources.checkpoint is not None and self.tokens is not None:
            yield from checkpoint.findings(self.tokens, contract)
        if sources.app_source is not None:
            from harness.audit import app

            of_app, self.notes = app.read(sources.app_source, contract, update=sources.update)
            yield from of_app
        if sources.collator is not None:
            if self.tokens is None:
                said = "reading its batch takes a tokenizer; give --checkpoint or --bundle"
                raise AuditError(f"collator {sources.collator}: {said}")
            yield from collator.findings(sources.collator, self.tokens, contract, sources.dataset)
        if sources.dataset is not None:
            yield from dataset.findings(
                sources.dataset,
                contract,
                self.progress.track("searching pixels"),
                sources=sources.originals,
                tokens=self.tokens,
            )
        if self.bundle is not None and self.tokens is not None:
            yield from bundle.findings(self.bundle, self.tokens, contract)


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
