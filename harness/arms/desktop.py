"""`desktop`: llama-cpp-python's libmtmd on this host, step by step as the runner on a phone."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import llama_cpp
from PIL import Image

from devices.runner.protocol import (
    PROTOCOL_VERSION,
    Attestation,
    RunnerFault,
    Timings,
    Token,
)
from devices.runner.source import LLAMA_COMMIT, SDIST_VERSION
from harness.arms import host
from harness.arms.base import Prepared
from harness.arms.chunks import Evaluated, ImageChunk, UnexpectedChunks, evaluated
from harness.arms.llama import LlamaSession, StepFailed
from harness.arms.logits import Step
from harness.bundle import Bundle
from harness.contract import Contract, Runtime
from harness.errors import BundleError
from harness.observation import Conditions, Observation

TOP_K: Final = 16
FRAME: Final = "<fake_token_around_image>"


@dataclass
class _Answer:
    """What is known of one image so far; grows step by step, and stays when a step fails."""

    pixels_sha256: str | None = None
    prompt: Evaluated | None = None
    tokens: list[Token] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    label_logprobs: dict[str, float] = field(default_factory=dict)
    stop_reason: Literal["eog", "max_tokens", "error"] = "error"
    timings_ms: Timings | None = None
    fault: RunnerFault | None = None

    @property
    def text(self) -> str:
        """The pieces without the token that ended the answer."""
        shown = self.pieces[:-1] if self.stop_reason == "eog" else self.pieces
        return b"".join(shown).decode("utf-8", errors="replace")


@dataclass
class _Clock:
    """Milliseconds per stage of one image."""

    image_decode: float = 0.0
    tokenize: float = 0.0
    encode: list[float] = field(default_factory=list)
    prefill: float = 0.0
    decode: list[float] = field(default_factory=list)


class DesktopArm:
    """One quant type of a bundle under one runtime. The model is loaded once, when first needed."""

    def __init__(
        self, bundle: Bundle, quant: str, runtime: Runtime, contract: Contract, name: str
    ) -> None:
        """Raises BundleError where the bundle has no such quant type."""
        self.name = name
        self.phone: str | None = None
        self._contract = contract
        self._runtime = runtime
        self._text_model = bundle.text_model(quant)
        self._mmproj = bundle.mmproj(quant)
        self._bundle = bundle
        self._loaded: LlamaSession | None = None

    def close(self) -> None:
        """Free the model; a later `attest` or `observe` loads it again."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def attest(self) -> Attestation:
        """Build, machine and settings. Raises BundleError where a file cannot be loaded."""
        session = self._session()
        system_info = llama_cpp.llama_print_system_info().decode()
        library = next((Path(llama_cpp.__file__).parent / "lib").glob("libllama.*"))
        return Attestation(
            protocol=PROTOCOL_VERSION,
            llama_commit=_llama_commit(),
            compiler=host.compiler(library),
            target=host.target(),
            variant=f"llama-cpp-python {llama_cpp.__version__}",
            cpu_features_found=host.features_found(),
            cpu_features_used=host.features_used(system_info),
            backends=host.backends(system_info),
            threads=session.threads,
            vision_threads=session.vision_threads,
            placement=host.placement(),
            text_model_sha256=self._bundle.file_sha256(self._text_model),
            mmproj_sha256=self._bundle.file_sha256(self._mmproj),
            load_ms=session.load_ms,
            pid=os.getpid(),
        )

    def observe(self, images: Iterable[Prepared]) -> Iterator[Observation]:
        """Run `images` in order, the KV cache cleared before each."""
        session = self._session()
        for image in images:
            answer = _Answer()
            begin = time.perf_counter_ns()
            clock = _Clock()
            try:
                self._answer(session, image.pixels_path, answer, clock)
            except (StepFailed, UnexpectedChunks) as error:
                kind = error.kind if isinstance(error, StepFailed) else "tokenize"
                answer.stop_reason = "error"
                answer.fault = RunnerFault(kind=kind, detail=str(error))
            answer.timings_ms = Timings(**vars(clock), total=_since_ms(begin))
            yield self._observation(session, image, answer)

    def _session(self) -> LlamaSession:
        if self._loaded is None:
            marker = self._contract.prompt.marker
            self._loaded = LlamaSession(self._text_model, self._mmproj, self._runtime, marker)
        return self._loaded

    def _answer(
        self, session: LlamaSession, pixels_path: Path, answer: _Answer, clock: _Clock
    ) -> None:
        begin = time.perf_counter_ns()
        rgb, size = _decoded(pixels_path)
        clock.image_decode = _since_ms(begin)
        answer.pixels_sha256 = hashlib.sha256(rgb).hexdigest()
        session.clear()
        begin = time.perf_counter_ns()
        with session.tokenized(rgb, *size, self._contract.prompt) as chunks:
            answer.prompt = evaluated(
                chunks,
                self._contract.tiling,
                self._frame_id(session),
                lambda ids: b"".join(map(session.piece, ids)).decode(errors="replace"),
            )
            clock.tokenize = _since_ms(begin)
            _refuse_overlong(answer.prompt, self._runtime.context)
            self._prefill(session, answer.prompt, clock)
        self._generate(session, answer, clock)

    def _frame_id(self, session: LlamaSession) -> int:
        ids = session.token_ids(FRAME, parse_special=True)
        if len(ids) != 1:
            raise BundleError(
                f"{self._text_model}: its tokenizer has no {FRAME}: not a SmolVLM text model; "
                "build the bundle again from its checkpoint"
            )
        return ids[0]

    def _prefill(self, session: LlamaSession, prompt: Evaluated, clock: _Clock) -> None:
        for chunk in prompt.chunks:
            if isinstance(chunk, ImageChunk):
                begin = time.perf_counter_ns()
                embeddings = session.encode(chunk)
                clock.encode.append(_since_ms(begin))
                begin = time.perf_counter_ns()
                session.decode_image(chunk, embeddings)
            else:
                begin = time.perf_counter_ns()
                last = chunk is prompt.chunks[-1]
                session.decode_text(chunk.ids, logits_last=last)
            clock.prefill += _since_ms(begin)

    def _generate(self, session: LlamaSession, answer: _Answer, clock: _Clock) -> None:
        step = Step(session.logits())
        answer.label_logprobs = {
            label: step.logprob(session.token_ids(label)[0])
            for label in self._contract.answer.labels
        }
        while True:
            piece = session.piece(step.greedy)
            answer.pieces.append(piece)
            answer.tokens.append(step.token(piece.decode(errors="replace"), TOP_K))
            if session.is_end(step.greedy):
                answer.stop_reason = "eog"
                return
            if len(answer.tokens) == self._contract.limits.max_tokens:
                answer.stop_reason = "max_tokens"
                return
            if session.position >= self._runtime.context:
                raise StepFailed(
                    "context_full", f"the answer filled the context of {self._runtime.context}"
                )
            begin = time.perf_counter_ns()
            session.decode_text((step.greedy,), logits_last=True)
            clock.decode.append(_since_ms(begin))
            step = Step(session.logits())

    def _observation(self, session: LlamaSession, image: Prepared, answer: _Answer) -> Observation:
        prompt = answer.prompt
        memory = host.memory()
        return Observation(
            contract_sha256=self._contract.sha256,
            arm=self.name,
            phone=None,
            case_id=image.case_id,
            session=image.session,
            position=image.position,
            pixels_sha256=answer.pixels_sha256,
            grid=None if prompt is None else prompt.grid,
            image_tokens=None if prompt is None else prompt.image_tokens,
            prompt_ids=[] if prompt is None else prompt.prompt_ids,
            tokens=answer.tokens,
            label_logprobs=answer.label_logprobs,
            text=answer.text,
            label=None if answer.fault else self._contract.answer.read(answer.text),
            stop_reason=answer.stop_reason,
            timings_ms=answer.timings_ms,
            conditions=Conditions(
                memory_peak_kib=memory.peak_kib,
                memory_kib=memory.now_kib,
                load_ms=session.load_ms,
            ),
            error=answer.fault,
        )


def _llama_commit() -> str:
    version: str = llama_cpp.__version__
    pinned = version == SDIST_VERSION
    return LLAMA_COMMIT if pinned else f"unknown: llama-cpp-python {version}, not {SDIST_VERSION}"


def _decoded(path: Path) -> tuple[bytes, tuple[int, int]]:
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
            return rgb.tobytes(), rgb.size
    except OSError as error:
        raise StepFailed("image_decode", f"{path.name}: {error}") from error


def _refuse_overlong(prompt: Evaluated, context: int) -> None:
    count = len(prompt.prompt_ids)
    if count > context - 1:
        raise StepFailed(
            "context_full", f"the prompt has {count} tokens, the context holds {context}"
        )


def _since_ms(begin_ns: int) -> float:
    return (time.perf_counter_ns() - begin_ns) / 1e6
