"""What the arms on this host share: the way of one image from its PNG to an observation.

The steps are the runner's (devices/runner); a `HostModel` computes them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Literal, Protocol, TypeVar

import numpy as np
from PIL import Image

from driftloop.devices.runner.protocol import (
    Attestation,
    Evidence,
    Fingerprint,
    RunnerFault,
    Timings,
    Token,
)
from driftloop.harness.arms import base, decoding, host
from driftloop.harness.arms.base import Look, Prepared, StageFailed
from driftloop.harness.arms.decoding import Chooser, Step
from driftloop.harness.arms.fingerprint import fingerprint
from driftloop.harness.arms.passage import Driving, Passage, Recording
from driftloop.harness.contract import Contract
from driftloop.harness.preprocess import pixels_sha256
from driftloop.harness.records.observation import Conditions, Observation
from driftloop.harness.training.prompt import OBSERVED_IMAGE_ID

if TYPE_CHECKING:
    from driftloop.harness.arms.base import Tensor
    from driftloop.harness.arms.trajectory import Trajectory

StageTensor = Literal["pixels", "embed", "prefill"]
"""The stages whose tensors every arm reports: fields of `Evidence`."""

_TOP_K: Final = 16
"""Rivals kept of each token; the runner keeps as many."""


_OBSERVED: Final = (
    "pixels_sha256", "grid", "image_tokens", "prompt_ids", "tokens", "label_logprobs", "text",
    "stop_reason", "error",
)  # fmt: skip
"""Fields that an observation has as the answer has them."""


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

    passage: Passage
    """What becomes of every output on the way."""
    pixels_sha256: str | None = None
    grid: tuple[int, int] | None = None
    image_tokens: int | None = None
    prompt_ids: list[int] = field(default_factory=list)
    """The arm's own."""
    embeddings: Tensor | None = None
    """(image tokens, width), as the text model gets them; None where they were not reached."""
    tokens: list[Token] = field(default_factory=list)
    label_logprobs: dict[str, float] = field(default_factory=dict)
    evidence: dict[StageTensor, Fingerprint] = field(default_factory=dict)
    text: str = ""
    stop_reason: Literal["eog", "max_tokens", "error"] = "error"
    error: RunnerFault | None = None
    clock: Clock = field(default_factory=Clock)
    total_ms: float = 0.0

    def saw(self, stage: StageTensor, tensor: Tensor) -> Tensor:
        """Keeps the fingerprint of a stage's `tensor`; returns the tensor that goes on."""
        self.evidence[stage] = fingerprint(tensor)
        return self.passage.stage(stage, tensor)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Times the whole answer; a stage that fails becomes its error."""
        begin = time.perf_counter_ns()
        try:
            yield
        except StageFailed as failed:
            self.stop_reason = "error"
            self.error = RunnerFault(kind=failed.kind, detail=str(failed))
        self.total_ms = since_ms(begin)


class HostModel(Protocol):
    """A loaded model, which works on one image at a time."""

    load_ms: float
    vocabulary: int
    """How many token ids there are."""
    width: int
    """Of an embedding."""

    def computing(self) -> AbstractContextManager[object]:
        """Everything of one answer is computed in such a block."""
        return nullcontext()

    def tokenize(self, image: Image.Image, contract: Contract) -> tuple[list[int], tuple[int, int]]:
        """The prompt's ids around `image` (RGB), each image token -1, and its grid of tiles as
        (rows, columns) without the overview. Raises StageFailed (`tokenize`)."""

    def refuse_overlong(self, ids: Sequence[int], max_tokens: int) -> None:
        """Raises StageFailed (`context_full`) where a prompt of `ids` has no room."""

    def encode(self, answer: Answer) -> Tensor:
        """Embeddings (image tokens, width) of the tokenized image, tile by tile, by way of
        `answer`. Raises StageFailed (`encode`)."""

    def prefill(self, ids: Sequence[int], embeddings: Tensor, passage: Passage) -> Tensor:
        """The first step's logits (vocabulary). Raises StageFailed (`decode`)."""

    def decode(self, token: int) -> Tensor:
        """The logits (vocabulary) after one more token. Raises StageFailed."""

    def token_ids(self, text: str, *, parse_special: bool = False) -> list[int]:
        """`text` as ids, nothing added before or after."""

    def text(self, ids: Sequence[int]) -> str:
        """What `ids` spell, special tokens included."""

    def is_end(self, token: int) -> bool:
        """Whether the model itself ends an answer with `token`."""

    def close(self) -> None:
        """Free it; harmless when done twice."""


Model = TypeVar("Model", bound=HostModel)


class HostArm(ABC, Generic[Model]):
    """An arm on this host. Its model is loaded once, when first needed."""

    def __init__(self, name: str, contract: Contract) -> None:
        self.name = name
        self.phone: str | None = None
        self._contract = contract
        self._loaded: Model | None = None

    @abstractmethod
    def attest(self) -> Attestation:
        """Build, machine and settings. Raises as `observe` does."""

    @abstractmethod
    def _load(self, *, deep: bool = False) -> Model:
        """`deep`: passages are shown every layer's output."""

    def _deep(self) -> AbstractContextManager[Model]:
        """A second model for deep mode, freed at the end of the block."""
        return closing(self._load(deep=True))

    @property
    def _model(self) -> Model:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def close(self) -> None:
        """Free the model; a later call loads it again."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def observe(self, images: Iterable[Prepared]) -> Iterator[Observation]:
        """Runs `images` in order, the KV cache cleared before each.

        Raises:
            BundleError, CheckpointError: a file of the model cannot be loaded.
            ContractError: `decoding.stop` names what is no token of the model.
        """
        model = self._model
        for image in images:
            yield self._observation(model, image, self._answered(model, image, Passage()))

    def record(self, images: Iterable[Prepared]) -> Iterator[Look]:
        """Runs `images` in deep mode. Raises as `observe` does."""
        with self._deep() as model:
            for image in images:
                recording = Recording()
                answer = self._answered(model, image, recording)
                yield Look(self._observation(model, image, answer), recording.tensors)

    def drive(self, images: Iterable[tuple[Prepared, Trajectory]]) -> Iterator[Observation]:
        """Runs each image along a reference's trajectory. Raises as `observe` does."""
        with self._deep() as model:
            for image, trajectory in images:
                answer = self._answered(model, image, Driving(trajectory))
                yield self._observation(model, image, answer)

    def _answered(
        self, model: Model, image: Prepared, passage: Passage, max_tokens: int | None = None
    ) -> Answer:
        answer = Answer(passage)
        with answer.attempt(), model.computing():
            begin = time.perf_counter_ns()
            picture = _decoded(image.pixels_path)
            answer.clock.image_decode = since_ms(begin)
            answer.pixels_sha256 = pixels_sha256(picture)
            begin = time.perf_counter_ns()
            answer.prompt_ids, answer.grid = model.tokenize(picture, self._contract)
            answer.clock.tokenize = since_ms(begin)
            answer.image_tokens = answer.prompt_ids.count(OBSERVED_IMAGE_ID)
            ids = passage.prompt_ids(answer.prompt_ids, model.vocabulary)
            model.refuse_overlong(ids, self._contract.limits.max_tokens)
            answer.embeddings = model.encode(answer)
            self._generate(model, answer, ids, answer.embeddings, max_tokens)
        return answer

    def _generate(
        self,
        model: Model,
        answer: Answer,
        ids: Sequence[int],
        embeddings: Tensor,
        max_tokens: int | None = None,
    ) -> None:
        """Prefills `ids` and generates the contract's `max_tokens`, or fewer."""
        image_tokens = ids.count(OBSERVED_IMAGE_ID)
        if embeddings.shape != (image_tokens, model.width):
            raise StageFailed(
                "encode",
                f"the prompt has {image_tokens} image tokens of {model.width} numbers, "
                f"the embeddings are {embeddings.shape}",
            )
        contract = self._contract
        stops = decoding.stop_ids(contract.decoding, partial(model.token_ids, parse_special=True))
        begin = time.perf_counter_ns()
        logits = model.prefill(ids, embeddings, answer.passage)
        answer.clock.prefill = since_ms(begin)
        answer.saw("prefill", logits)
        step = _step(logits)
        answer.label_logprobs = {
            label: step.logprob(model.token_ids(label)[0]) for label in contract.answer.labels
        }
        chooser = Chooser(contract.decoding)
        while True:
            chosen = chooser.choose(step)
            answer.tokens.append(step.token(chosen, model.text([chosen]), _TOP_K))
            if model.is_end(chosen) if stops is None else chosen in stops:
                answer.stop_reason = "eog"
                return
            # A character may span two tokens, so all of them are spelled together.
            answer.text = model.text([token.id for token in answer.tokens])
            if len(answer.tokens) == (max_tokens or contract.limits.max_tokens):
                answer.stop_reason = "max_tokens"
                return
            begin = time.perf_counter_ns()
            logits = model.decode(chosen)
            answer.clock.decode.append(since_ms(begin))
            step = _step(logits)

    def _observation(self, model: Model, image: Prepared, answer: Answer) -> Observation:
        memory = host.memory()
        conditions = Conditions(
            memory_peak_kib=memory.peak_kib, memory_kib=memory.now_kib, load_ms=model.load_ms
        )
        fields = {name: getattr(answer, name) for name in _OBSERVED}
        fields |= {
            "evidence": Evidence(**answer.evidence),
            "driven": answer.passage.driven,
            "timings_ms": Timings(**vars(answer.clock), total=answer.total_ms),
            "conditions": conditions,
        }
        return base.observed((self.name, None), self._contract, image, fields)


def _decoded(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise StageFailed("image_decode", f"{path.name}: {error}") from error


def _step(logits: Tensor) -> Step:
    if not np.isfinite(logits).all():
        raise StageFailed("decode", "the logits are not finite")
    return Step(logits)


def since_ms(begin_ns: int) -> float:
    """Milliseconds since a reading of `time.perf_counter_ns`."""
    return (time.perf_counter_ns() - begin_ns) / 1e6
