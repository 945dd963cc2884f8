"""The sources of an audit, each opened once, and what is read and measured from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from harness import bundle as bundles
from harness import checkpoint as checkpoints
from harness.audit.aspects import changed, in_order
from harness.audit.findings import Finding, Side, Value
from harness.audit.rows import Row
from harness.audit.tokens import Tokens
from harness.contract import Contract
from harness.errors import AuditError, CaseError
from harness.images import IMAGE_SUFFIXES, open_image

if TYPE_CHECKING:
    from harness.audit.measure import Impact
    from harness.progress import Progress

_PICTURES: Final = 6
_AUTHORITY: Final = ("collator", "dataset", "train-config", "checkpoint", "bundle", "app")
"""Whose value stands for the training side where several were found, the surest first."""


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
        named: dict[Side, object] = {
            "dataset": self.dataset,
            "checkpoint": self.checkpoint,
            "bundle": self.bundle,
            "train-config": self.train_config,
            "collator": self.collator,
            "app": self.app_source,
        }
        return [side for side, value in named.items() if value is not None]


@dataclass(frozen=True)
class Measured:
    """A row's aspect and found value with what it does to the answers; both None: all together."""

    aspect: str | None
    found: Value | None
    impact: Impact


class House:
    """The sources, opened once each."""

    def __init__(self, sources: Sources, contract: Contract, progress: Progress) -> None:
        if not sources.sides:
            raise AuditError(
                "nothing to audit: give at least one of --dataset, --checkpoint, --bundle, "
                "--train-config, --collator and --app-source"
            )
        self._sources = sources
        self._contract = contract
        self._progress = progress
        self.notes: list[str] = []
        """What is to be said of the app's files."""

    @cached_property
    def bundle(self) -> bundles.Bundle | None:
        """The bundle, its manifest read."""
        return bundles.load(self._sources.bundle) if self._sources.bundle is not None else None

    @cached_property
    def tokens(self) -> Tokens | None:
        """Of the checkpoint that was given, else of the one in the bundle."""
        if self._sources.checkpoint is not None:
            return Tokens(checkpoints.load(self._sources.checkpoint))
        if self.bundle is not None:
            return Tokens(checkpoints.load(self.bundle.checkpoint))
        return None

    def findings(self) -> Iterator[Finding]:
        """Everything that the sources say."""
        # Small and likely to be mistyped first: nothing is waited for before it is refused.
        yield from self._train_config()
        yield from self._checkpoint()
        yield from self._app()
        yield from self._collator()
        yield from self._dataset()
        yield from self._bundle()

    def _train_config(self) -> Iterator[Finding]:
        from harness.audit import train_config

        file = self._sources.train_config
        if file is None:
            return
        texts = self.tokens.image_texts if self.tokens else ()
        if self.tokens is None:
            yield from train_config.findings(file, self._contract)
            return
        settings = checkpoints.processor_settings(self.tokens.checkpoint.path)
        own = (settings.get("image_mean") or [0.5] * 3, settings.get("image_std") or [0.5] * 3)
        yield from train_config.findings(
            file, self._contract, image_texts=texts, normalisation=own, tokens=self.tokens
        )

    def config_keys_left(self) -> int:
        """Settings of the trainer's configuration that say nothing about any aspect."""
        from harness.audit import train_config

        file = self._sources.train_config
        return train_config.unread(file, self._contract) if file is not None else 0

    def _checkpoint(self) -> Iterator[Finding]:
        from harness.audit import checkpoint

        if self._sources.checkpoint is not None and self.tokens is not None:
            yield from checkpoint.findings(self.tokens.checkpoint, self.tokens, self._contract)

    def _bundle(self) -> Iterator[Finding]:
        from harness.audit import bundle

        if self.bundle is not None and self.tokens is not None:
            yield from bundle.findings(self.bundle, self.tokens, self._contract)

    def _app(self) -> Iterator[Finding]:
        if self._sources.app_source is None:
            return
        from harness.audit import app

        found, self.notes = app.read(
            self._sources.app_source, self._contract, update=self._sources.update
        )
        yield from found
        yield from self._app_fits(found)

    def _app_fits(self, found: Sequence[Finding]) -> Iterator[Finding]:
        """The app's own prompt and limit in the app's own context, as its tokens."""
        from harness.audit.bundle import prompt_fits

        if self.tokens is None or any(finding.aspect == "prompt_fits" for finding in found):
            return
        own = {
            finding.aspect: finding
            for finding in found
            if finding.value is not None
            and finding.aspect in ("context", "max_tokens", "prompt_words", "tiling")
        }
        if "context" not in own:
            return
        contract: Contract | None = self._contract
        room = own["context"].value
        if isinstance(room, int):
            runtime = self._contract.runtime.model_copy(update={"context": room})
            contract = self._contract.model_copy(update={"runtime": runtime})
        for key in in_order(set(own) - {"context"}):
            value = own[key].value
            contract = changed(contract, key, value) if contract and value is not None else None
        if contract is not None:
            yield prompt_fits(self.tokens, contract, "app", own["context"].where)

    def _collator(self) -> Iterator[Finding]:
        spec = self._sources.collator
        if spec is None:
            return
        if self.tokens is None:
            raise AuditError(
                f"collator {spec}: reading its batch takes a tokenizer; give --checkpoint or "
                "--bundle"
            )
        from harness.audit import collator

        yield from collator.findings(spec, self.tokens, self._contract, self._sources.dataset)

    def _dataset(self) -> Iterator[Finding]:
        from harness.audit import dataset

        if self._sources.dataset is None:
            return
        yield from dataset.findings(
            self._sources.dataset,
            self._contract,
            self._progress.track("searching pixels"),
            sources=self._sources.originals,
            image_texts=self.tokens.image_texts if self.tokens else (),
            template=self.tokens.written if self.tokens else None,
        )

    def pictures(self, measure_on: str | None) -> tuple[list[Image.Image], str]:
        """Pictures to measure pixels on, and what they are."""
        from harness import cases
        from harness.audit.collator.examples import drawn

        files: list[Path] = []
        if measure_on is not None:
            found = cases.load_cases(measure_on, self._contract.answer.labels, skip_bad=True)
            files = [case.path for case in found.cases]
        elif self._sources.originals is not None:
            files = [
                file
                for file in sorted(self._sources.originals.rglob("*"))
                if file.suffix.lower() in IMAGE_SUFFIXES
            ]
        opened = []
        for file in files[:_PICTURES]:
            try:
                opened.append(open_image(file))
            except CaseError:
                continue
        if opened:
            return opened, "of the images"
        return [
            sample.image for sample in drawn(self._contract.answer.labels, "")
        ], "drawn pictures"

    def measured(self, rows: Sequence[Row], images: str) -> list[Measured]:
        """What each mismatch does to the checkpoint's answers on `images`."""
        from harness.audit import measure

        if self.tokens is None:
            raise AuditError("--measure runs the checkpoint; give --checkpoint or --bundle")
        wrong = {
            (row.aspect, row.found): row
            for row in rows
            if row.match is False and row.found is not None
        }
        spelled = self._contract.model_copy(update={"pixels": self._contract.pixels.spelled_out})
        changes = {}
        for aspect, found in wrong:
            other = changed(spelled, aspect, found)
            if other is not None:
                changes[measure.Change(aspect, other)] = found
        together = self._together(list(wrong.values()), spelled)
        impacts = measure.impacts(
            self.tokens.checkpoint,
            spelled,
            list(changes),
            images,
            self._progress,
            together=together if len(changes) > 1 else None,
        )
        return [
            Measured(
                impact.change.aspect if impact.change else None,
                changes[impact.change] if impact.change else None,
                impact,
            )
            for impact in impacts
        ]

    def _together(self, wrong: Sequence[Row], contract: Contract) -> Contract:
        """The contract with everything as it was found; of several values the surest side's."""
        surest: dict[str, Value] = {}
        for row in sorted(wrong, key=lambda row: _AUTHORITY.index(row.side)):
            if row.found is not None:
                surest.setdefault(row.aspect, row.found)
        for aspect in in_order(surest):
            contract = changed(contract, aspect, surest[aspect]) or contract
        return contract
