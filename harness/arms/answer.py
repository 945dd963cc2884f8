"""What an arm on this host learns of one image, stage by stage, until it is an observation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from devices.runner.protocol import Evidence, Fingerprint, RunnerFault, Timings, Token
from harness.arms import host
from harness.arms.base import Prepared, StageFailed
from harness.arms.fingerprint import fingerprint
from harness.arms.logits import Step
from harness.arms.passage import Passage
from harness.contract import Contract
from harness.records.observation import Conditions, Observation

if TYPE_CHECKING:
    from harness.arms.base import Tensor

StageTensor = Literal["pixels", "embed", "prefill"]
"""The stages whose tensors every arm tells of: fields of `Evidence`."""

TOP_K = 16
"""As many rivals of each token are kept as the runner keeps."""


@dataclass
class Clock:
    """Milliseconds per stage of one image."""

    image_decode: float = 0.0
    tokenize: float = 0.0
    encode: list[float] = field(default_factory=list)
    prefill: float = 0.0
    decode: list[float] = field(default_factory=list)


@dataclass
class Answer:
    """What is known of one image so far; grows stage by stage, and stays when a stage fails."""

    passage: Passage = field(default_factory=Passage)
    """What becomes of every output on the way."""
    pixels_sha256: str | None = None
    grid: tuple[int, int] | None = None
    image_tokens: int | None = None
    prompt_ids: list[int] = field(default_factory=list)
    """The arm's own."""
    tokens: list[Token] = field(default_factory=list)
    label_logprobs: dict[str, float] = field(default_factory=dict)
    evidence: dict[StageTensor, Fingerprint] = field(default_factory=dict)
    text: str = ""
    stop_reason: Literal["eog", "max_tokens", "error"] = "error"
    fault: RunnerFault | None = None
    clock: Clock = field(default_factory=Clock)
    total_ms: float = 0.0

    def saw(self, stage: StageTensor, tensor: Tensor) -> Tensor:
        """A stage of this arm's own gave `tensor`, of at least one element; what goes on."""
        self.evidence[stage] = fingerprint(tensor)
        return self.passage.stage(stage, tensor)

    def saw_prefill(self, logits: Tensor) -> Step:
        """The first step, from its logits (vocabulary). Raises StageFailed as `step` does."""
        self.saw("prefill", logits)
        return step(logits)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Times the whole answer; a stage that fails becomes its fault."""
        begin = time.perf_counter_ns()
        try:
            yield
        except StageFailed as failed:
            self.stop_reason = "error"
            self.fault = RunnerFault(kind=failed.kind, detail=str(failed))
        self.total_ms = since_ms(begin)

    def observation(
        self, image: Prepared, *, arm: str, contract: Contract, load_ms: float
    ) -> Observation:
        """The record of `image` as `arm` on this host saw it."""
        memory = host.memory()
        return Observation(
            contract_sha256=contract.sha256,
            arm=arm,
            phone=None,
            case_id=image.case_id,
            session=image.session,
            position=image.position,
            pixels_sha256=self.pixels_sha256,
            grid=self.grid,
            image_tokens=self.image_tokens,
            prompt_ids=self.prompt_ids,
            tokens=self.tokens,
            label_logprobs=self.label_logprobs,
            evidence=Evidence(**self.evidence),
            driven=self.passage.driven,
            text=self.text,
            label=None if self.fault else contract.answer.read(self.text),
            stop_reason=self.stop_reason,
            timings_ms=Timings(**vars(self.clock), total=self.total_ms),
            conditions=Conditions(
                memory_peak_kib=memory.peak_kib, memory_kib=memory.now_kib, load_ms=load_ms
            ),
            error=self.fault,
            canary=image.canary,
        )


def decoded(path: Path) -> Image.Image:
    """The RGB pixels of a prepared PNG. Raises StageFailed (`image_decode`) where it has none."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise StageFailed("image_decode", f"{path.name}: {error}") from error


def step(logits: Tensor) -> Step:
    """One step, from its logits (vocabulary). Raises StageFailed (`decode`) unless finite."""
    if not np.isfinite(logits).all():
        raise StageFailed("decode", "the logits are not finite")
    return Step(logits)


def refuse_unfit(embeddings: Tensor, image_tokens: int, width: int) -> None:
    """Raises StageFailed (`encode`) where embeddings do not fill the prompt's image tokens."""
    if embeddings.shape != (image_tokens, width):
        raise StageFailed(
            "encode",
            f"the prompt has {image_tokens} image tokens of {width} numbers, "
            f"the embeddings are {embeddings.shape}",
        )


def since_ms(begin_ns: int) -> float:
    """Milliseconds since a reading of `time.perf_counter_ns`."""
    return (time.perf_counter_ns() - begin_ns) / 1e6
