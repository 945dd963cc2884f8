"""What a mismatch costs in the checkpoint's own answers: the hop from `torch:training` to `torch`,
taken apart. Answers are kept as the torch arm's are, so that nothing is answered twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from driftloop.devices.hashing import file_sha256
from driftloop.devices.paths import cache_dir
from driftloop.harness import cases, ladder
from driftloop.harness.arms.base import extra_named
from driftloop.harness.audit.findings import Value
from driftloop.harness.checkpoint import Checkpoint
from driftloop.harness.comparison.case_comparison import label_differences
from driftloop.harness.contract import Contract
from driftloop.harness.records.observation import Observation
from driftloop.harness.running import result_cache, run_plan
from driftloop.harness.running.images import prepare_cases
from driftloop.harness.running.result_cache import ResultCache

if TYPE_CHECKING:
    from driftloop.harness.progress import Progress

_ARM: Final = ladder.parse("torch")
_CHECKPOINT_SUFFIXES: Final = frozenset({".json", ".jinja", ".txt", ".model", ".safetensors"})
"""The files that a bundle copies: its torch arm finds the answers kept here, and the reverse."""


@dataclass(frozen=True)
class Change:
    """One thing that differs from the contract."""

    aspect: str
    found: Value
    contract: Contract


@dataclass(frozen=True)
class Impact:
    """What a change does to the answers; `change` None is all of them together."""

    change: Change | None
    cases: int
    """Answered both ways."""
    changed: int
    unanswered: int
    """Further cases, with an answer under the contract alone: refused pixels, a prompt too long."""
    labelled: int
    """Of `cases`, those whose true label is known."""
    right_before: int
    right_after: int
    mean_shift: float | None
    """Nats, absolute, over every label of every case; None where no probabilities are known."""

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
    """One `Impact` per change, worst first; none without changes. `together`: the contract with all
    that was changed; its impact, whose `change` is None, comes last. Raises ArmUnavailable where
    torch is not installed."""
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
        with extra_named(_ARM):
            from driftloop.harness.arms.torch import TorchArm
        self._arm = TorchArm(checkpoint, contract)
        files = sorted(checkpoint.path.iterdir())
        self._hashes = [file_sha256(file) for file in files if file.suffix in _CHECKPOINT_SUFFIXES]
        self._contract = contract
        self._progress = progress
        self._cases = cases.load_cases(images, contract.answer.labels).cases
        self._before = self._answers(contract, "the contract", skip_bad=False)

    def impact(self, change: Change | None, contract: Contract) -> Impact:
        name = "all together" if change is None else change.aspect
        after = self._answers(contract, name, skip_bad=True)
        both = [(seen, after[case]) for case, seen in self._before.items() if case in after]
        truths = {case.id: case.label for case in self._cases if case.label is not None}
        known = [(*pair, truths[pair[0].case_id]) for pair in both if pair[0].case_id in truths]
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
            labelled=len(known),
            right_before=sum(ours.label == truth for ours, _, truth in known),
            right_after=sum(theirs.label == truth for _, theirs, truth in known),
            mean_shift=sum(shifts) / len(shifts) if shifts else None,
        )

    def _answers(self, contract: Contract, name: str, *, skip_bad: bool) -> dict[str, Observation]:
        """Case id -> answer under `contract`, those with an error left out."""
        advance, folder = self._progress.track("preparing pixels"), cache_dir("pixels")
        ready = prepare_cases(self._cases, contract.pixels, folder, advance, skip_bad=skip_bad)
        images = [one.at(0, position) for position, one in enumerate(ready.cases)]
        advance = self._progress.track(f"measuring {name}")
        cache = self._cache(contract)
        known = ((image.case_id, cache.get(image, contract, _ARM.name)) for image in images)
        seen = {case: answer for case, answer in known if answer is not None}
        fresh = [image for image in images if image.case_id not in seen]
        advance(len(seen), len(images))
        if fresh:
            arm = self._arm.under(contract)
            cache.keep_attestation(arm.attest())
            for image, answer in zip(fresh, arm.observe(fresh), strict=True):
                cache.put(image, answer)
                seen[image.case_id] = answer
                advance(len(seen), len(images))
        return {case: answer for case, answer in seen.items() if answer.error is None}

    def _cache(self, contract: Contract) -> ResultCache:
        versions = run_plan.answered_by(_ARM.kind)
        return ResultCache(result_cache.arm_key(_ARM, contract, self._hashes, versions))
