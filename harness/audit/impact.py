"""What a mismatch costs: in pixels and in text, and in the checkpoint's own answers.

Answers are measured with the torch arm under the contract with that one thing changed, beside a
run under the contract itself; last with all changes together. It is the hop from `torch:training`
to `torch`, taken apart. Answers are kept as the torch arm's are, so that nothing is answered twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from devices.hashing import file_sha256
from devices.paths import cache_dir
from harness import cases, ladder
from harness.arms.base import Prepared
from harness.audit.aspects import changed
from harness.audit.checkpoint import Tokens
from harness.audit.collator import drawn
from harness.audit.findings import Value
from harness.audit.rows import Row
from harness.checkpoint import Checkpoint
from harness.comparison.case_comparison import label_differences
from harness.contract import Contract
from harness.errors import ArmUnavailable, CaseError
from harness.images import open_image
from harness.preprocess import prepare_as
from harness.preprocess.cost import difference
from harness.records.observation import Observation
from harness.running import result_cache, run_plan
from harness.running.images import prepare_cases
from harness.running.result_cache import ResultCache

if TYPE_CHECKING:
    from harness.progress import Progress

_PICTURES: Final = 6
_BEFORE, _AFTER = 12, 20
"""Characters shown around the first difference of two texts."""
_ARM: Final = ladder.parse("torch")
_CHECKPOINT_SUFFIXES: Final = frozenset({".json", ".jinja", ".txt", ".model", ".safetensors"})
"""Of the files a bundle copies: its own torch arm finds answers kept here, and the other way
round."""


@dataclass(frozen=True)
class Gauge:
    """What the impact of a mismatch is measured with, without running the model."""

    contract: Contract
    tokens: Tokens | None
    """The checkpoint's tokenizer, where one was given."""
    pictures: Sequence[Image.Image]
    """As the camera takes them."""
    pictures_are: str
    """Where they come from, in words."""

    def measured(self, row: Row, on_answers: Mapping[tuple[str, Value], str] | None = None) -> Row:
        """A mismatch with its impact, that `on_answers` first; any other row as it is."""
        if row.match is not False or row.value is None:
            return row
        said = [(on_answers or {}).get((row.aspect, row.value)), self._said(row.aspect, row.value)]
        return replace(row, impact="; ".join(filter(None, said)))

    def _said(self, aspect: str, value: Value) -> str | None:
        if aspect == "max_tokens" and self.tokens is not None:
            longest = self.tokens.longest_answer(self.contract)
            return f"none while the answer is a label: {longest} tokens with its end, at most"
        other = changed(self.contract, aspect, value)
        if other is None:
            return None
        if other.pixels != self.contract.pixels.spelled_out:
            return self._levels(other)
        if self.tokens is not None and other.tiling != self.contract.tiling:
            found, wanted = (self.tokens.prompt(one) for one in (other, self.contract))
            return (
                f"{found.image_tokens} image tokens against {wanted.image_tokens}, "
                f"{len(found.ids)} prompt tokens against {len(wanted.ids)}"
            )
        return _texts(self.contract.prompt.text, other.prompt.text)

    def _levels(self, other: Contract) -> str | None:
        distances = []
        for picture in self.pictures:
            try:
                pair = [prepare_as(picture, one.pixels) for one in (self.contract, other)]
            except CaseError:
                continue
            side = max(image.width for image in pair)
            # Of two sizes, the smaller is seen enlarged: the vision tower takes one size alone.
            alike = [image.resize((side, side), Image.Resampling.LANCZOS) for image in pair]
            distances.append(difference(*alike).mean_abs)
        if not distances:
            return None
        return (
            f"pixels differ by {np.mean(distances):.2f} of 255 levels "
            f"(mean over {len(distances)} {self.pictures_are})"
        )


def gauge(
    contract: Contract, tokens: Tokens | None, measure_on: str | None, originals: Path | None
) -> Gauge:
    """A gauge with pictures of the user's own where there are some.

    Raises:
        CaseError: as `harness.cases.load_cases`.
    """
    opened: list[Image.Image] = []
    if (spec := measure_on or originals) is not None:
        found = cases.load_cases(str(spec), contract.answer.labels, skip_bad=True)
        for case in found.cases[:_PICTURES]:
            with contextlib.suppress(CaseError):
                opened.append(open_image(case.path))
    if opened:
        return Gauge(contract, tokens, opened, "of the images")
    pictures = [sample.image for sample in drawn(contract.answer.labels, "")]
    return Gauge(contract, tokens, pictures, "drawn pictures")


def _texts(one: str, other: str) -> str | None:
    if one == other:
        return None
    at = next(at for at, (a, b) in enumerate(zip_longest(one, other)) if a != b)
    shown = [repr(text[max(0, at - _BEFORE) : at + _AFTER]) for text in (one, other)]
    return f"texts differ from character {at} on: contract {shown[0]}, found {shown[1]}"


@dataclass(frozen=True)
class Change:
    """One thing done otherwise than the contract says."""

    aspect: str
    """Key of an `harness.audit.aspects.Aspect`."""
    found: Value
    contract: Contract
    """The contract with that one thing as it was found."""


@dataclass(frozen=True)
class Impact:
    """What a change does to the answers; `change` None is all of them together."""

    change: Change | None
    cases: int
    """Answered both ways."""
    changed: int
    """Of `cases`, those with another label."""
    unanswered: int
    """Cases with an answer under the contract alone: refused pixels, a prompt too long."""
    labelled: int
    """Of `cases`, those whose true label is known."""
    right_before: int
    right_after: int
    mean_shift: float | None
    """Nats, absolute, over every label of every case; None where no probability was told."""

    @property
    def text(self) -> str:
        """`12 of 102 answers change; 90 -> 78 of 96 right; labels shift by 1.3 nats (mean)`."""
        said = [f"{self.changed} of {self.cases} answers change{'s' * (self.changed == 1)}"]
        if self.unanswered:
            said.append(f"{self.unanswered} more get none")
        if self.labelled:
            said.append(f"{self.right_before} -> {self.right_after} of {self.labelled} right")
        if self.mean_shift is not None:
            said.append(f"labels shift by {self.mean_shift:.2g} nats (mean)")
        return "; ".join(said)

    @property
    def badness(self) -> tuple[int, int, float]:
        """What sorts the worst last."""
        lost = self.right_before - self.right_after
        return self.changed + self.unanswered, lost, self.mean_shift or 0.0


def impacts(
    checkpoint: Checkpoint,
    contract: Contract,
    changes: Sequence[Change],
    images: str,
    progress: Progress,
    *,
    together: Contract | None = None,
) -> list[Impact]:
    """One `Impact` per change, worst first.

    `images` as `harness.cases.load_cases` takes them. `together`: the contract with all that was
    changed; its impact, whose `change` is None, comes last. Without changes nothing is run.

    Raises:
        BadInput: the images.
        ArmUnavailable: torch is not installed.
    """
    if not changes:
        return []
    bench = _Bench(checkpoint, contract, images, progress)
    found = [bench.impact(change, change.contract) for change in changes]
    found.sort(key=lambda impact: impact.badness, reverse=True)
    return found if together is None else [*found, bench.impact(None, together)]


class _Bench:
    """One checkpoint and one set of images, to be answered under any contract."""

    def __init__(
        self, checkpoint: Checkpoint, contract: Contract, images: str, progress: Progress
    ) -> None:
        try:
            from harness.arms.torch import TorchArm
        except ModuleNotFoundError as error:
            raise ArmUnavailable(
                f"measuring needs the package {error.name}: pip install 'driftloop[torch]'"
            ) from error
        self._arm = TorchArm(checkpoint, contract)
        files = sorted(checkpoint.path.iterdir())
        self._hashes = [file_sha256(file) for file in files if file.suffix in _CHECKPOINT_SUFFIXES]
        self._contract = contract
        self._progress = progress
        self._cases = cases.load_cases(images, contract.answer.labels).cases
        self._before = self._answers(contract, "the contract", skip_bad=False)

    def impact(self, change: Change | None, contract: Contract) -> Impact:
        """`contract` beside the one the bench was made for."""
        name = "all together" if change is None else change.aspect
        after = self._answers(contract, name, skip_bad=True)
        both = [(self._before[case], after[case]) for case in self._before if case in after]
        truths = {case.id: case.label for case in self._cases if case.label is not None}
        told = [pair for pair in both if pair[0].case_id in truths]
        shifts = [
            shift
            for ours, theirs in both
            for shift in label_differences(ours.label_logprobs, theirs.label_logprobs).values()
        ]
        return Impact(
            change=change,
            cases=len(both),
            changed=sum(ours.label != theirs.label for ours, theirs in both),
            unanswered=len(self._before) - len(both),
            labelled=len(told),
            right_before=sum(ours.label == truths[ours.case_id] for ours, _ in told),
            right_after=sum(theirs.label == truths[theirs.case_id] for _, theirs in told),
            mean_shift=sum(shifts) / len(shifts) if shifts else None,
        )

    def _answers(self, contract: Contract, name: str, *, skip_bad: bool) -> dict[str, Observation]:
        """Case id -> answer under `contract`, those with an error left out."""
        advance, folder = self._progress.track("preparing pixels"), cache_dir("pixels")
        ready = prepare_cases(self._cases, contract.pixels, folder, advance, skip_bad=skip_bad)
        images = [
            Prepared(one.case.id, 0, position, one.pixels_path, one.pixels_sha256)
            for position, one in enumerate(ready.cases)
        ]
        advance = self._progress.track(f"measuring {name}")
        seen = {image.case_id: kept for image in images if (kept := self._kept(image, contract))}
        fresh = [image for image in images if image.case_id not in seen]
        advance(len(seen), len(images))
        if fresh:
            arm, cache = self._arm.under(contract), self._cache(contract)
            cache.keep_attestation(arm.attest())
            for image, answer in zip(fresh, arm.observe(fresh), strict=True):
                cache.put(image, answer)
                seen[image.case_id] = answer
                advance(len(seen), len(images))
        return {case: answer for case, answer in seen.items() if answer.error is None}

    def _kept(self, image: Prepared, contract: Contract) -> Observation | None:
        kept = self._cache(contract).get(image, contract, _ARM.name)
        if kept is not None:
            return kept
        # An answer that ended by itself is the same under every limit that it keeps to.
        usual = contract.model_copy(update={"limits": self._contract.limits})
        kept = self._cache(usual).get(image, contract, _ARM.name)
        if kept is None or kept.stop_reason != "eog":
            return None
        return kept if len(kept.tokens or ()) <= contract.limits.max_tokens else None

    def _cache(self, contract: Contract) -> ResultCache:
        versions = run_plan.answered_by(_ARM.kind)
        return ResultCache(result_cache.arm_key(_ARM, contract, self._hashes, versions))
