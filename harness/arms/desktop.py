"""`desktop`: llama-cpp-python's libmtmd on this host, step by step as the runner on a phone."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import llama_cpp

from devices.runner.protocol import PROTOCOL_VERSION, Attestation
from devices.runner.source import LLAMA_COMMIT, SDIST_VERSION
from harness.arms import host
from harness.arms.answer import TOP_K, Answer, Clock, StageFailed, decoded, since_ms
from harness.arms.base import Prepared
from harness.arms.chunks import Chunk, Evaluated, ImageChunk, UnexpectedChunks, evaluated
from harness.arms.llama import LlamaSession
from harness.arms.logits import Step
from harness.bundle import Bundle
from harness.contract import Contract, Runtime
from harness.errors import BundleError
from harness.observation import Observation

FRAME: Final = "<fake_token_around_image>"


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
            answer = Answer()
            with answer.attempt():
                self._answer(session, image.pixels_path, answer)
            yield answer.observation(
                image, arm=self.name, contract=self._contract, load_ms=session.load_ms
            )

    def _session(self) -> LlamaSession:
        if self._loaded is None:
            marker = self._contract.prompt.marker
            self._loaded = LlamaSession(self._text_model, self._mmproj, self._runtime, marker)
        return self._loaded

    def _answer(self, session: LlamaSession, pixels_path: Path, answer: Answer) -> None:
        clock = answer.clock
        begin = time.perf_counter_ns()
        image = decoded(pixels_path)
        rgb = image.tobytes()
        clock.image_decode = since_ms(begin)
        answer.pixels_sha256 = hashlib.sha256(rgb).hexdigest()
        session.clear()
        begin = time.perf_counter_ns()
        with session.tokenized(rgb, *image.size, self._contract.prompt) as chunks:
            prompt = self._evaluated(session, chunks)
            clock.tokenize = since_ms(begin)
            answer.grid = prompt.grid
            answer.image_tokens, answer.prompt_ids = prompt.image_tokens, prompt.prompt_ids
            _refuse_overlong(prompt, self._runtime.context)
            self._prefill(session, prompt, clock)
        self._generate(session, answer)

    def _evaluated(self, session: LlamaSession, chunks: Sequence[Chunk]) -> Evaluated:
        def spelled(ids: Sequence[int]) -> str:
            return b"".join(map(session.piece, ids)).decode(errors="replace")

        try:
            return evaluated(chunks, self._contract.tiling, self._frame_id(session), spelled)
        except UnexpectedChunks as error:
            raise StageFailed("tokenize", str(error)) from error

    def _frame_id(self, session: LlamaSession) -> int:
        ids = session.token_ids(FRAME, parse_special=True)
        if len(ids) != 1:
            raise BundleError(
                f"{self._text_model}: its tokenizer has no {FRAME}: not a SmolVLM text model; "
                "build the bundle again from its checkpoint"
            )
        return ids[0]

    def _prefill(self, session: LlamaSession, prompt: Evaluated, clock: Clock) -> None:
        for chunk in prompt.chunks:
            if isinstance(chunk, ImageChunk):
                begin = time.perf_counter_ns()
                embeddings = session.encode(chunk)
                clock.encode.append(since_ms(begin))
                begin = time.perf_counter_ns()
                session.decode_image(chunk, embeddings)
            else:
                begin = time.perf_counter_ns()
                last = chunk is prompt.chunks[-1]
                session.decode_text(chunk.ids, logits_last=last)
            clock.prefill += since_ms(begin)

    def _generate(self, session: LlamaSession, answer: Answer) -> None:
        step = Step(session.logits())
        answer.label_logprobs = {
            label: step.logprob(session.token_ids(label)[0])
            for label in self._contract.answer.labels
        }
        said = b""
        while True:
            piece = session.piece(step.greedy)
            answer.tokens.append(step.token(piece.decode(errors="replace"), TOP_K))
            if session.is_end(step.greedy):
                answer.stop_reason = "eog"
                return
            # A character may span two pieces, so the bytes are joined first.
            said += piece
            answer.text = said.decode(errors="replace")
            if len(answer.tokens) == self._contract.limits.max_tokens:
                answer.stop_reason = "max_tokens"
                return
            if session.position >= self._runtime.context:
                raise StageFailed(
                    "context_full", f"the answer filled the context of {self._runtime.context}"
                )
            begin = time.perf_counter_ns()
            session.decode_text((step.greedy,), logits_last=True)
            answer.clock.decode.append(since_ms(begin))
            step = Step(session.logits())


def _refuse_overlong(prompt: Evaluated, context: int) -> None:
    count = len(prompt.prompt_ids)
    if count > context - 1:
        raise StageFailed(
            "context_full", f"the prompt has {count} tokens, the context holds {context}"
        )


def _llama_commit() -> str:
    version: str = llama_cpp.__version__
    pinned = version == SDIST_VERSION
    return LLAMA_COMMIT if pinned else f"unknown: llama-cpp-python {version}, not {SDIST_VERSION}"
