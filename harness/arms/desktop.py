"""`desktop`: llama-cpp-python's libllama and libmtmd on this host, called function by function as
the runner calls them on a phone."""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import llama_cpp as bindings
import numpy as np
from llama_cpp import llama_cpp, mtmd_cpp

from driftloop.devices.runner.llama_cpp import LLAMA_COMMIT, SDIST_VERSION
from driftloop.devices.runner.protocol import PROTOCOL_VERSION, Attestation, RunSettings
from driftloop.harness.arms import host, layers, llama_load
from driftloop.harness.arms.base import Prepared, StageFailed, Twins
from driftloop.harness.arms.chunks import Chunk, ImageChunk, evaluated
from driftloop.harness.arms.graph_watch import GraphWatch, VisionWatch
from driftloop.harness.arms.host_arm import Answer, Clock, HostArm, HostModel, since_ms
from driftloop.harness.arms.llama_load import Handle
from driftloop.harness.arms.passage import Nudging, Passage
from driftloop.harness.bundle import Bundle
from driftloop.harness.contract import Contract, Runtime
from driftloop.harness.errors import BundleError
from driftloop.harness.training.prompt import OBSERVED_IMAGE_ID

if TYPE_CHECKING:
    from PIL import Image

    from driftloop.harness.arms.base import Tensor

_FRAME: Final = "<fake_token_around_image>"
_SEQUENCE: Final = 0
_PIECE_BYTES: Final = 256


class DesktopArm(HostArm["LlamaSession"]):
    """One quant type of a bundle under one runtime."""

    def __init__(
        self, bundle: Bundle, quant: str, runtime: Runtime, contract: Contract, name: str
    ) -> None:
        """Raises BundleError where the bundle has no such quant type."""
        super().__init__(name, contract)
        self._runtime = runtime
        self._text_model = bundle.text_model(quant)
        self._mmproj = bundle.mmproj(quant)
        self._bundle = bundle

    def attest(self) -> Attestation:
        """Build, machine and settings. Raises BundleError where a file cannot be loaded."""
        model = self._model
        system_info = llama_cpp.llama_print_system_info().decode()
        library = next((Path(bindings.__file__).parent / "lib").glob("libllama.*"))
        version = bindings.__version__
        return Attestation(
            protocol=PROTOCOL_VERSION,
            llama_commit=LLAMA_COMMIT
            if version == SDIST_VERSION
            else f"unknown: llama-cpp-python {version}, not {SDIST_VERSION}",
            compiler=host.compiler(library),
            target=host.target(),
            variant=f"llama-cpp-python {version}",
            cpu_features_found=host.features_found(),
            cpu_features_used=host.features_used(system_info),
            backends=host.backends(system_info),
            threads=model.threads,
            vision_threads=model.vision_threads,
            placement=host.placement(),
            text_model_sha256=self._bundle.file_sha256(self._text_model),
            mmproj_sha256=self._bundle.file_sha256(self._mmproj),
            settings=model.settings(self._contract),
            load_ms=model.load_ms,
            pid=os.getpid(),
        )

    def twin(self, images: Sequence[Prepared], seed: int, vision: int) -> Iterator[Twins]:
        """As `TwinArm.twin`. Raises as `observe` does."""
        model = self._model
        for place, image in enumerate(images):
            draw = (seed, int(image.pixels_sha256[:16], 16))
            seen = partial(self._observation, model, image)
            own = self._answered(model, image, Passage())
            # Running the vision tower again would give the same embeddings.
            embed = replace(
                own,
                passage=Nudging("embed", draw),
                evidence=dict(own.evidence),
                tokens=[],
                text="",
                clock=Clock(),
            )
            if own.embeddings is not None:
                with embed.attempt():
                    model.clear()
                    moved = embed.saw("embed", own.embeddings)
                    self._generate(model, embed, embed.prompt_ids, moved, max_tokens=1)
            pixels = None
            if place < vision:
                pixels = seen(self._answered(model, image, Nudging("pixels", draw), max_tokens=1))
            yield Twins(own=seen(own), embed=seen(embed), pixels=pixels)

    def _load(self, *, deep: bool = False) -> LlamaSession:
        marker = self._contract.prompt.marker
        return LlamaSession(self._text_model, self._mmproj, self._runtime, marker, deep=deep)


class LlamaSession(HostModel):
    """One process of the app: a text model, its mmproj and a context, and images one after another.

    `close` frees them, as does losing the session."""

    def __init__(
        self, text_model: Path, mmproj: Path, runtime: Runtime, marker: str, *, deep: bool = False
    ) -> None:
        """`deep`: passages are also shown every layer's output.

        Raises BundleError where a file cannot be loaded, ArmUnavailable without a context.
        """
        llama_load.redirect_log()
        llama_cpp.llama_backend_init()
        cores = host.usable_cores()
        self.threads = runtime.threads_on(cores)
        self.vision_threads = vision_threads(runtime, cores)
        self._runtime = runtime
        self._text_path = text_model
        stack = ExitStack()
        self._free = weakref.finalize(self, stack.close)
        self._vision = VisionWatch(layers.of_vision_node if deep else None)
        begin = time.perf_counter_ns()
        self._model = llama_load.text_model(text_model, stack)
        count = llama_cpp.llama_model_n_layer(self._model)
        last_alone = partial(layers.last_token_alone, text_layers=count)
        self._text = GraphWatch(layers.of_text_node, last_alone) if deep else None
        self._context = llama_load.context(self._model, runtime, self.threads, self._text, stack)
        self._mtmd = llama_load.mmproj(
            mmproj, self._model, runtime, self.vision_threads, marker, self._vision, stack
        )
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.width = llama_cpp.llama_model_n_embd_inp(self._model)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._ids = llama_load.batch(runtime.batch, 0, stack)
        self._rows = llama_load.batch(runtime.batch, self.width, stack)
        self._image = stack.enter_context(ExitStack())
        # Read the weights before an image is timed; libmtmd has done so for its own.
        self._position = 0
        self._decode((0,), logits_last=True)
        self.load_ms = since_ms(begin)

    def close(self) -> None:
        self._free()

    def clear(self) -> None:
        """Empty the KV cache, as the app does after each image."""
        llama_cpp.llama_memory_clear(self._memory, True)
        self._position = 0

    def tokenize(self, image: Image.Image, contract: Contract) -> tuple[list[int], tuple[int, int]]:
        self.clear()
        self._image.close()
        rgb, prompt = image.tobytes(), contract.prompt
        pixels = (ctypes.c_uint8 * len(rgb)).from_buffer_copy(rgb)
        bitmap = mtmd_cpp.mtmd_bitmap_init(*image.size, pixels)
        self._image.callback(mtmd_cpp.mtmd_bitmap_free, bitmap)
        self._chunks = mtmd_cpp.mtmd_input_chunks_init()
        self._image.callback(mtmd_cpp.mtmd_input_chunks_free, self._chunks)
        raw = prompt.text.encode()
        text = mtmd_cpp.mtmd_input_text(raw, len(raw), prompt.add_special, prompt.parse_special)
        bitmaps = (ctypes.c_void_p * 1)(bitmap)
        llama_load.forget_errors()
        status = mtmd_cpp.mtmd_tokenize(self._mtmd, self._chunks, ctypes.byref(text), bitmaps, 1)
        _refuse("tokenize", "mtmd_tokenize", status)
        count = mtmd_cpp.mtmd_input_chunks_size(self._chunks)
        chunks = [self._chunk(index) for index in range(count)]
        taken = evaluated(chunks, contract.tiling, self._frame_id(), self.text)
        self._tiles = taken.tiles
        return taken.prompt_ids, taken.grid

    def refuse_overlong(self, ids: Sequence[int], max_tokens: int) -> None:
        """Only the prompt has to fit: an answer that fills the context is stopped there."""
        context = self._runtime.context
        if len(ids) > context - 1:
            raise StageFailed(
                "context_full", f"the prompt has {len(ids)} tokens, the context holds {context}"
            )

    def encode(self, answer: Answer) -> Tensor:
        passage, tiles = answer.passage, self._tiles
        others, pixel_values, rows = [], [], []
        if (count := passage.tiles(len(tiles))) != len(tiles):
            # Driven along another tiling, the own tiles are measured and not used. Any chunk then
            # lends its place in the graph: all are of one size.
            others = [self._encode(chunk, 0, Passage())[0] for chunk in tiles]
            tiles = [tiles[0]] * count
        for place, chunk in enumerate(tiles):
            begin = time.perf_counter_ns()
            own, encoded = self._encode(chunk, place, passage)
            answer.clock.encode.append(since_ms(begin))
            pixel_values.append(own)
            rows.append(encoded)
        answer.saw("pixels", np.stack(others or pixel_values))
        return answer.saw("embed", np.concatenate(rows))

    def prefill(self, ids: Sequence[int], embeddings: Tensor, passage: Passage) -> Tensor:
        """Consecutive ids together, each tile's embeddings on their own."""
        reached, taken = 0, 0
        with nullcontext() if self._text is None else self._text.watching(passage):
            for is_image, run in groupby(ids, OBSERVED_IMAGE_ID.__eq__):
                part = list(run)
                reached += len(part)
                last = reached == len(ids)
                if is_image:
                    taken += len(part)
                    rows = embeddings[taken - len(part) : taken]
                    self._decode(rows, logits_last=last)
                else:
                    self._decode(part, logits_last=last)
        return self._logits()

    def decode(self, token: int) -> Tensor:
        context = self._runtime.context
        if self._position >= context:
            raise StageFailed("context_full", f"the answer filled the context of {context}")
        self._decode((token,), logits_last=True)
        return self._logits()

    def token_ids(self, text: str, *, parse_special: bool = False) -> list[int]:
        raw = text.encode()
        ids = (llama_cpp.llama_token * (len(raw) + 1))()
        count = llama_cpp.llama_tokenize(
            self._vocab, raw, len(raw), ids, len(ids), False, parse_special
        )
        return list(ids[:count])

    def text(self, ids: Sequence[int]) -> str:
        return b"".join(map(self._piece, ids)).decode(errors="replace")

    def is_end(self, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def settings(self, contract: Contract) -> RunSettings:
        """Those in force: sizes as llama.cpp reports them, the rest as requested."""
        return RunSettings(
            context=llama_cpp.llama_n_ctx(self._context),
            batch=llama_cpp.llama_n_batch(self._context),
            micro_batch=llama_cpp.llama_n_ubatch(self._context),
            cache_type_k=self._runtime.cache_type_k,
            cache_type_v=self._runtime.cache_type_v,
            flash_attention=self._runtime.flash_attention,
            max_tokens=contract.limits.max_tokens,
            decoding=contract.decoding,
        )

    def _encode(self, chunk: ImageChunk, place: int, passage: Passage) -> tuple[Tensor, Tensor]:
        """Copies of one tile's own pixel values (3, height, width) and, by way of `passage`, where
        it is the tile at `place`, of its embeddings (tokens, width)."""
        llama_load.forget_errors()
        with self._vision.tile(place, passage):
            pointer = mtmd_cpp.mtmd_input_chunks_get(self._chunks, chunk.index)
            status = mtmd_cpp.mtmd_encode_chunk(self._mtmd, pointer)
            _refuse("encode", "mtmd_encode_chunk", status)
        pointer = mtmd_cpp.mtmd_get_output_embd(self._mtmd)
        rows = np.ctypeslib.as_array(pointer, shape=(chunk.tokens, self.width))
        return self._vision.pixel_values, rows.copy()

    def _decode(self, part: Sequence[int] | Tensor, *, logits_last: bool) -> None:
        """Ids, or embeddings (tokens, width), a batch at a time, as libmtmd's helper does it."""
        for start in range(0, len(part), self._runtime.batch):
            some = part[start : start + self._runtime.batch]
            if isinstance(some, np.ndarray):
                batch, rows = self._rows, np.ascontiguousarray(some, dtype=np.float32)
                ctypes.memmove(batch.embd, rows.ctypes.data, rows.nbytes)
            else:
                batch = self._ids
                for place, token in enumerate(some):
                    batch.token[place] = token
            last = start + len(some) == len(part)
            self._decode_batch(batch, len(some), logits_last=logits_last and last)

    def _decode_batch(self, batch: Handle, count: int, *, logits_last: bool) -> None:
        for place in range(count):
            batch.pos[place] = self._position + place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = _SEQUENCE
            batch.logits[place] = False
        batch.logits[count - 1] = logits_last
        batch.n_tokens = count
        llama_load.forget_errors()
        _refuse("decode", "llama_decode", llama_cpp.llama_decode(self._context, batch))
        self._position += count

    def _logits(self) -> Tensor:
        """A copy of the last token's."""
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary,)).copy()

    def _piece(self, token: int) -> bytes:
        size = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def _frame_id(self) -> int:
        ids = self.token_ids(_FRAME, parse_special=True)
        if len(ids) != 1:
            raise BundleError(
                f"{self._text_path}: its tokenizer has no {_FRAME}: not a SmolVLM text model; "
                "build the bundle again from its checkpoint"
            )
        return ids[0]

    def _chunk(self, index: int) -> Chunk:
        pointer = mtmd_cpp.mtmd_input_chunks_get(self._chunks, index)
        if mtmd_cpp.mtmd_input_chunk_get_type(pointer) != mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
            return ImageChunk(index, mtmd_cpp.mtmd_input_chunk_get_n_tokens(pointer))
        count = ctypes.c_size_t()
        ids = mtmd_cpp.mtmd_input_chunk_get_tokens_text(pointer, ctypes.byref(count))
        text = tuple(ids[: count.value])
        if not all(0 <= token < self.vocabulary for token in text):
            raise StageFailed(
                "tokenize", "the tokenizer lacks a token that libmtmd puts around images"
            )
        return text


def vision_threads(runtime: Runtime, cores: int) -> int:
    """No more than there are cores: ggml's threads wait for each other by spinning.

    On two cores, four of them take many times as long as two, for the same numbers.
    """
    return min(runtime.vision_threads, cores)


def _refuse(stage: str, function: str, status: int) -> None:
    if status != 0:
        raise StageFailed(stage, f"{function}: {status}: {llama_load.first_error()}")
