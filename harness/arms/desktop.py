"""`desktop`: llama-cpp-python's libmtmd on this host, step by step as the runner on a phone."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import llama_cpp
import numpy as np

from devices.runner.protocol import PROTOCOL_VERSION, Attestation
from devices.runner.source import LLAMA_COMMIT, SDIST_VERSION
from harness.arms import decoding, host
from harness.arms.answer import (
    TOP_K,
    Answer,
    Clock,
    decoded,
    refuse_unfit,
    since_ms,
    step,
)
from harness.arms.base import Look, Prepared, StageFailed, Twins
from harness.arms.chunks import Chunk, Evaluated, ImageChunk, UnexpectedChunks, evaluated
from harness.arms.decoding import Chooser
from harness.arms.driven import Driving
from harness.arms.llama import LlamaSession
from harness.arms.passage import Nudging, Passage, Recording
from harness.bundle import Bundle
from harness.contract import Contract, Runtime
from harness.errors import BundleError
from harness.records.observation import Observation
from harness.training.prompt import OBSERVED_IMAGE_ID

if TYPE_CHECKING:
    from harness.arms.base import Tensor
    from harness.arms.trajectory import Trajectory

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
            settings=session.settings(
                self._runtime, self._contract.limits.max_tokens, self._contract.decoding
            ),
            load_ms=session.load_ms,
            pid=os.getpid(),
        )

    def observe(self, images: Iterable[Prepared]) -> Iterator[Observation]:
        """Run `images` in order, the KV cache cleared before each.

        Raises:
            BundleError: a file cannot be loaded.
            ContractError: `decoding.stop` names what is no token of the model.
        """
        session = self._session()
        for image in images:
            answer = Answer()
            self._answer(session, image, answer)
            yield self._observation(image, answer, session)

    def record(self, images: Iterable[Prepared]) -> Iterator[Look]:
        """Run `images` in deep mode, in a second model that is freed after the last of them.

        Raises as `observe` does.
        """
        with closing(self._load(deep=True)) as session:
            for image in images:
                recording = Recording()
                answer = Answer(recording)
                self._answer(session, image, answer)
                yield Look(self._observation(image, answer, session), recording.tensors)

    def drive(self, images: Iterable[tuple[Prepared, Trajectory]]) -> Iterator[Observation]:
        """Run each image along a reference's trajectory, in a second model as `record` does."""
        with closing(self._load(deep=True)) as session:
            for image, trajectory in images:
                answer = Answer()
                self._answer(session, image, answer, trajectory=trajectory)
                yield self._observation(image, answer, session)

    def twin(self, images: Sequence[Prepared], seed: int, vision: int) -> Iterator[Twins]:
        """Answer each image, and its twins moved by what `seed` draws. Raises as `observe`.

        `vision`: so many of the images get a twin with other pixel values, which takes the vision
        tower once more.
        """
        session = self._session()
        for place, image in enumerate(images):
            draw = (seed, int(image.pixels_sha256[:16], 16))
            own = Answer()
            embeddings = self._answer(session, image, own)
            # The vision tower would give the same once more.
            embed = replace(
                own,
                passage=Nudging("embed", draw),
                evidence=dict(own.evidence),
                tokens=[],
                text="",
                clock=Clock(),
            )
            if embeddings is not None:
                with embed.attempt():
                    session.clear()
                    moved = embed.saw("embed", embeddings)
                    self._prefill(session, embed.prompt_ids, moved, embed)
                    self._generate(session, embed, most_tokens=1)
            pixels = None
            if place < vision:
                pixels = Answer(Nudging("pixels", draw))
                self._answer(session, image, pixels, most_tokens=1)
            yield Twins(
                own=self._observation(image, own, session),
                embed=self._observation(image, embed, session),
                pixels=None if pixels is None else self._observation(image, pixels, session),
            )

    def _session(self) -> LlamaSession:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self, *, deep: bool = False) -> LlamaSession:
        marker = self._contract.prompt.marker
        return LlamaSession(self._text_model, self._mmproj, self._runtime, marker, deep=deep)

    def _observation(self, image: Prepared, answer: Answer, session: LlamaSession) -> Observation:
        return answer.observation(
            image, arm=self.name, contract=self._contract, load_ms=session.load_ms
        )

    def _answer(
        self,
        session: LlamaSession,
        image: Prepared,
        answer: Answer,
        *,
        trajectory: Trajectory | None = None,
        most_tokens: int | None = None,
    ) -> Tensor | None:
        """Fills `answer`; the embeddings that went into the text model, None after a fault."""
        embeddings = None
        with answer.attempt():
            if trajectory is not None:
                answer.passage = Driving(trajectory)
            ids, embeddings = self._encoded(session, image.pixels_path, answer)
            self._prefill(session, ids, embeddings, answer)
            self._generate(session, answer, most_tokens or self._contract.limits.max_tokens)
        return embeddings

    def _ends(self, session: LlamaSession) -> Callable[[int], bool]:
        """Which ids end an answer."""
        ids = decoding.stop_ids(
            self._contract.decoding, lambda text: session.token_ids(text, parse_special=True)
        )
        return session.is_end if ids is None else ids.__contains__

    def _encoded(
        self, session: LlamaSession, pixels_path: Path, answer: Answer
    ) -> tuple[list[int], Tensor]:
        """The ids to evaluate and the image's embeddings, (image tokens, width)."""
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
            answer.prompt_ids = prompt.prompt_ids
            answer.image_tokens = answer.prompt_ids.count(OBSERVED_IMAGE_ID)
            ids = answer.passage.prompt_ids(answer.prompt_ids, session.vocabulary)
            _refuse_overlong(ids, self._runtime.context)
            embeddings = _through_vision(session, prompt.images, answer)
        refuse_unfit(embeddings, ids.count(OBSERVED_IMAGE_ID), session.width)
        return ids, embeddings

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

    def _prefill(
        self, session: LlamaSession, ids: Sequence[int], embeddings: Tensor, answer: Answer
    ) -> None:
        """Consecutive ids together, each tile's embeddings on their own."""
        begin = time.perf_counter_ns()
        reached, taken = 0, 0
        with session.prefilling(answer.passage):
            for is_image, run in groupby(ids, _is_image):
                part = list(run)
                reached += len(part)
                last = reached == len(ids)
                if is_image:
                    rows = embeddings[taken : taken + len(part)]
                    session.decode_embeddings(rows, logits_last=last)
                    taken += len(part)
                else:
                    session.decode_text(part, logits_last=last)
        answer.clock.prefill = since_ms(begin)

    def _generate(self, session: LlamaSession, answer: Answer, most_tokens: int) -> None:
        ends = self._ends(session)
        now = answer.saw_prefill(session.logits())
        answer.label_logprobs = {
            label: now.logprob(session.token_ids(label)[0])
            for label in self._contract.answer.labels
        }
        chooser = Chooser(self._contract.decoding)
        said = b""
        while True:
            chosen = chooser.choose(now)
            piece = session.piece(chosen)
            answer.tokens.append(now.token(chosen, piece.decode(errors="replace"), TOP_K))
            if ends(chosen):
                answer.stop_reason = "eog"
                return
            # A character may span two pieces, so the bytes are joined first.
            said += piece
            answer.text = said.decode(errors="replace")
            if len(answer.tokens) == most_tokens:
                answer.stop_reason = "max_tokens"
                return
            if session.position >= self._runtime.context:
                raise StageFailed(
                    "context_full", f"the answer filled the context of {self._runtime.context}"
                )
            begin = time.perf_counter_ns()
            session.decode_text((chosen,), logits_last=True)
            answer.clock.decode.append(since_ms(begin))
            now = step(session.logits())


def _is_image(token: int) -> bool:
    return token == OBSERVED_IMAGE_ID


def _through_vision(session: LlamaSession, images: Sequence[ImageChunk], answer: Answer) -> Tensor:
    """All tiles' embeddings, one after another."""
    passage = answer.passage
    others, pixel_values, rows = [], [], []
    if (tiles := passage.tiles(len(images))) != len(images):
        # Along another tiling's way the own tiles are seen and not used. Any chunk then lends its
        # place in the graph: all are of one size.
        others = [session.encode(chunk, 0, Passage())[0] for chunk in images]
        images = [images[0]] * tiles
    for place, chunk in enumerate(images):
        begin = time.perf_counter_ns()
        own, encoded = session.encode(chunk, place, passage)
        answer.clock.encode.append(since_ms(begin))
        pixel_values.append(own)
        rows.append(encoded)
    answer.saw("pixels", np.stack(others or pixel_values))
    return answer.saw("embed", np.concatenate(rows))


def _refuse_overlong(ids: Sequence[int], context: int) -> None:
    if len(ids) > context - 1:
        raise StageFailed(
            "context_full", f"the prompt has {len(ids)} tokens, the context holds {context}"
        )


def _llama_commit() -> str:
    version: str = llama_cpp.__version__
    pinned = version == SDIST_VERSION
    return LLAMA_COMMIT if pinned else f"unknown: llama-cpp-python {version}, not {SDIST_VERSION}"
