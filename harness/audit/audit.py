"""The audit: every source that was given, read once and put beside the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from driftloop.harness.audit import rows as rows_of
from driftloop.harness.audit.aspects import changed, spelled_out
from driftloop.harness.audit.findings import DEFAULT_TILING, Finding, Side
from driftloop.harness.audit.rows import Missing, Row, Verdict
from driftloop.harness.contract import Contract
from driftloop.harness.errors import AuditError

if TYPE_CHECKING:
    from driftloop.harness.audit.checkpoint import Tokens
    from driftloop.harness.audit.impact import Impact
    from driftloop.harness.bundle import Bundle
    from driftloop.harness.cases import Case
    from driftloop.harness.progress import Progress

_SIDES: Final[tuple[Side, ...]] = (
    "collator", "dataset", "train-config", "checkpoint", "bundle", "app"
)  # fmt: skip
"""The surest first: its value counts where several were found."""
_SETS_TILING: Final = ("collator", "train-config")
"""Where one of these states the tiling, the checkpoint's default does not count."""


@dataclass(frozen=True)
class Sources:
    """What an audit reads; at least one of the sides is given."""

    dataset: Path | None = None
    checkpoint: str | None = None
    bundle: Path | None = None
    train_config: Path | None = None
    collator: str | None = None
    app: Path | None = None
    """The folder of its source."""
    originals: Path | None = None
    """The images that the dataset was made from."""
    update: bool = False
    """Whether the app's confirmed values are written anew."""


@dataclass(frozen=True)
class Audit:
    """What was read and what it comes to."""

    contract: Contract
    verdict: Verdict
    rows: tuple[Row, ...]
    measured: tuple[Impact, ...]
    """Worst first, all together last; empty unless it was asked for."""
    config_keys_left: int
    """Settings of the trainer's configuration that concern no aspect."""
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]
    """One line for each of the app's files that was not read, or not well."""

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
    every mismatch. Raises BadInput where there is nothing to audit or a source cannot be read, and
    ArmUnavailable where a package that it needs is missing.
    """
    given = {name.replace("_", "-") for name, one in vars(sources).items() if one is not None}
    sides = [side for side in _SIDES if side in given]
    if not sides:
        raise AuditError(
            "nothing to audit: give at least one of --dataset, --checkpoint, --bundle, "
            "--train-config, --collator and --app-source"
        )
    contract = spelled_out(contract)
    # What reads a side is imported with it: most audits are of one or two.
    bundle: Bundle | None = None
    tokens: Tokens | None = None
    if sources.bundle is not None:
        from driftloop.harness import bundle as bundles

        bundle = bundles.load(sources.bundle)
    if (named := sources.checkpoint or (bundle.checkpoint if bundle else None)) is not None:
        from driftloop.harness import checkpoint as checkpoints
        from driftloop.harness.audit import checkpoint as of_checkpoint

        tokens = of_checkpoint.Tokens(checkpoints.load(named))
    elif sources.collator is not None or measure_on is not None:
        said = "--collator and --measure need a checkpoint; give --checkpoint or --bundle"
        raise AuditError(said)
    # Small and likely to be mistyped first: nobody waits for what is refused.
    pictures: Sequence[Case] = ()
    if (spec := measure_on or sources.originals) is not None:
        from driftloop.harness.cases import load_cases

        pictures = load_cases(str(spec), contract.answer.labels, skip_bad=True).cases
    found: list[Finding] = []
    config_keys_left, notes = 0, list[str]()
    if sources.train_config is not None:
        from driftloop.harness.audit import train_config

        found, config_keys_left = train_config.read(sources.train_config, contract, tokens)
    if sources.checkpoint is not None and tokens is not None:
        found += of_checkpoint.findings(tokens, contract)
    if sources.app is not None:
        from driftloop.harness.audit import app

        of_app, notes = app.read(sources.app, contract, update=sources.update)
        found += of_app
    if sources.collator is not None and tokens is not None:
        from driftloop.harness.audit import collator

        found += collator.findings(sources.collator, tokens, contract, sources.dataset)
    if sources.dataset is not None:
        from driftloop.harness.audit import dataset

        advance = progress.track("searching pixels")
        found += dataset.findings(sources.dataset, contract, advance, sources.originals, tokens)
    if bundle is not None and tokens is not None:
        from driftloop.harness.audit import bundle as of_bundle

        found += of_bundle.findings(bundle, tokens, contract)
    if any(one.side in _SETS_TILING and one.aspect == "tiling" and one.value for one in found):
        found = [one for one in found if not one.where.endswith(DEFAULT_TILING)]
    rows = rows_of.rows(found, contract)
    measured: list[Impact] = []
    if measure_on is not None and tokens is not None:
        measured = _measured(rows, contract, tokens, measure_on, progress)
    if any(row.match is False for row in rows):
        from driftloop.harness.audit.gauge import Gauge

        gauge = Gauge(contract, tokens, pictures)
        seen: dict[tuple[str, object], str] = {
            (one.change.aspect, one.change.found): one.text for one in measured if one.change
        }
        rows = [gauge.measured(row, seen.get((row.aspect, row.value), "")) for row in rows]
    missing = tuple(rows_of.missing(rows, sides))
    told = (tuple(rows), tuple(measured), config_keys_left, missing, tuple(notes))
    return Audit(contract, rows_of.verdict(rows, missing), *told)


def _measured(
    rows: Sequence[Row], contract: Contract, tokens: Tokens, images: str, progress: Progress
) -> list[Impact]:
    """What each mismatch does to the answers, and last all of them, of the surest sides."""
    from driftloop.harness.audit import impact
    from driftloop.harness.audit.impact import Change

    wrong = [row for row in rows if row.match is False]
    changes = [
        Change(aspect, value, other)
        for aspect, value in dict.fromkeys((row.aspect, row.value) for row in wrong)
        if value is not None and (other := changed(contract, aspect, value)) is not None
    ]
    together = contract
    by_side = sorted(wrong, key=lambda row: _SIDES.index(row.side))
    for aspect, value in {row.aspect: row.value for row in reversed(by_side)}.items():
        if value is not None:
            together = changed(together, aspect, value) or together
    last = together if len(changes) > 1 else None
    return impact.impacts(tokens.checkpoint, contract, changes, images, progress, together=last)
