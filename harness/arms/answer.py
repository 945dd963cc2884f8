"""What an arm on this host learns of one image, stage by stage, until it is an observation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from devices.runner.protocol import Evidence, Fingerprint, RunnerFault, Timings, Token
from harness.arms import host
from harness.arms.base import Prepared
from harness.arms.fingerprint import fingerprint
from harness.arms.logits import Step
from harness.contract import Contract
from harness.records.observation import Conditions, Observation
from harness.training.prompt import OBSERVED_IMAGE_ID

if TYPE_CHECKING:
    from harness.arms.base import Given, Tensor

StageTensor = Literal["pixels", "embed", "prefill"]
"""The stages whose tensors every arm tells of: fields of `Evidence`."""

TOP_K = 16
"""As many rivals of each token are kept as the runner keeps."""


class StageFailed(Exception):
    """One image cannot be answered; `kind` is a `RunnerFault`'s."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind = kind
        super().__init__(detail)


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

    deep: bool = False
    """Keep the tensors too, not their fingerprints alone."""
    pixels_sha256: str | None = None
    grid: tuple[int, int] | None = None
    image_tokens: int | None = None
    prompt_ids: list[int] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    label_logprobs: dict[str, float] = field(default_factory=dict)
    evidence: dict[StageTensor, Fingerprint] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Deep mode only: stages and layers in the order of computation."""
    text: str = ""
    stop_reason: Literal["eog", "max_tokens", "error"] = "error"
    fault: RunnerFault | None = None
    clock: Clock = field(default_factory=Clock)
    total_ms: float = 0.0

    def saw(self, stage: StageTensor, tensor: Tensor) -> None:
        """A stage of this arm's own gave `tensor`, of at least one element."""
        self.evidence[stage] = fingerprint(tensor)
        if self.deep:
            self.tensors[stage] = tensor

    def saw_layers(self, layers: Mapping[str, Tensor]) -> None:
        """Layers' outputs by their names, in the order of computation; deep mode alone has any."""
        self.tensors.update(layers)

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


def prompt_ids(own: list[int], given: Given, vocabulary: int) -> list[int]:
    """The ids to evaluate. Raises StageFailed (`tokenize`) where those given cannot be."""
    if given.prompt_ids is None:
        return own
    known = range(OBSERVED_IMAGE_ID, vocabulary)
    strangers = [token for token in given.prompt_ids if token not in known]
    if strangers or not given.prompt_ids:
        named = f"{strangers[0]} is no token of this model" if strangers else "none"
        raise StageFailed("tokenize", f"prompt ids were given: {named}")
    return list(given.prompt_ids)


def refuse_unfit(embeddings: Tensor, image_tokens: int, width: int) -> None:
    """Raises StageFailed (`tokenize`) where embeddings do not fill the prompt's image tokens."""
    if embeddings.shape != (image_tokens, width):
        raise StageFailed(
            "tokenize",
            f"the prompt has {image_tokens} image tokens of {width} numbers, "
            f"the embeddings are {embeddings.shape}",
        )


def refuse_unfit_tiles(pixel_values: Tensor, image_tokens: int, tokens_per_tile: int) -> None:
    """Raises StageFailed (`tokenize`) where so many tiles do not fill the image tokens."""
    if len(pixel_values) * tokens_per_tile != image_tokens or image_tokens == 0:
        raise StageFailed(
            "tokenize",
            f"the prompt has {image_tokens} image tokens, "
            f"{len(pixel_values)} tiles of {tokens_per_tile} were given",
        )


def since_ms(begin_ns: int) -> float:
    """Milliseconds since a reading of `time.perf_counter_ns`."""
    return (time.perf_counter_ns() - begin_ns) / 1e6
