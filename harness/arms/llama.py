"""llama-cpp-python's libllama and libmtmd, called function by function as the runner calls them.

One `LlamaSession` is one process of the app: a model and a context, and images one after another.
"""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from llama_cpp import llama_cpp, mtmd_cpp
from numpy.typing import NDArray

from harness.arms import host, llama_log
from harness.arms.answer import StageFailed
from harness.arms.chunks import Chunk, ImageChunk, TextChunk
from harness.contract import Prompt, Runtime
from harness.errors import ArmUnavailable, BundleError

_CACHE_TYPES: Final = {
    "f16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
}
Handle = Any
"""A pointer that llama-cpp-python's bindings, which have no types, take and give."""

_SEQUENCE: Final = 0
_PIECE_BYTES: Final = 256


def resolve_threads(threads: int, cores: int) -> int:
    """The app's rule where `threads` is 0: clamp(cores / 2, 2, 6)."""
    return threads or min(max(cores // 2, 2), 6)


def resolve_vision_threads(threads: int, cores: int) -> int:
    """No more than there are cores: ggml's threads wait for each other by spinning.

    On two cores, four of them take many times as long as two, for the same numbers.
    """
    return min(threads, cores)


class LlamaSession:
    """A text model and its mmproj, loaded once; `close` frees them, as does losing the session."""

    def __init__(self, text_model: Path, mmproj: Path, runtime: Runtime, marker: str) -> None:
        """Raises BundleError where a file cannot be loaded, ArmUnavailable without a context."""
        llama_log.redirect()
        llama_cpp.llama_backend_init()
        cores = host.usable_cores()
        self.threads = resolve_threads(runtime.threads, cores)
        self.vision_threads = resolve_vision_threads(runtime.vision_threads, cores)
        self._batch_size = runtime.batch
        stack = ExitStack()
        self._free = weakref.finalize(self, stack.close)
        begin = time.perf_counter_ns()
        self._model = _load_model(text_model, stack)
        self._context = _make_context(self._model, runtime, self.threads, stack)
        self._mtmd = _load_mmproj(mmproj, self._model, runtime, self.vision_threads, marker, stack)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(runtime.batch, 0, 1)
        stack.callback(llama_cpp.llama_batch_free, self._batch)
        self.position = 0
        """Tokens in the KV cache."""
        self._warm_up()
        self.load_ms = _since_ms(begin)

    def close(self) -> None:
        """Free everything; harmless when done twice."""
        self._free()

    def clear(self) -> None:
        """Empty the KV cache, as the app does after each image."""
        llama_cpp.llama_memory_clear(self._memory, True)
        self.position = 0

    def token_ids(self, text: str, *, parse_special: bool = False) -> list[int]:
        """`text` as ids, nothing added before or after."""
        raw = text.encode()
        ids = (llama_cpp.llama_token * (len(raw) + 1))()
        count = llama_cpp.llama_tokenize(
            self._vocab, raw, len(raw), ids, len(ids), False, parse_special
        )
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of one token, special ones as they are spelled."""
        size = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def is_end(self, token: int) -> bool:
        """True for a token that ends the answer."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    @contextmanager
    def tokenized(
        self, rgb: bytes, width: int, height: int, prompt: Prompt
    ) -> Iterator[tuple[Chunk, ...]]:
        """libmtmd's chunks of `prompt` around one image; `encode` takes them inside the block.

        `rgb`: 8 bits a channel, row by row. Raises StageFailed (`tokenize`).
        """
        with ExitStack() as stack:
            pixels = (ctypes.c_uint8 * len(rgb)).from_buffer_copy(rgb)
            bitmap = mtmd_cpp.mtmd_bitmap_init(width, height, pixels)
            stack.callback(mtmd_cpp.mtmd_bitmap_free, bitmap)
            chunks = mtmd_cpp.mtmd_input_chunks_init()
            stack.callback(mtmd_cpp.mtmd_input_chunks_free, chunks)
            raw = prompt.text.encode()
            text = mtmd_cpp.mtmd_input_text(raw, len(raw), prompt.add_special, prompt.parse_special)
            bitmaps = (ctypes.c_void_p * 1)(bitmap)
            llama_log.forget()
            status = mtmd_cpp.mtmd_tokenize(self._mtmd, chunks, ctypes.byref(text), bitmaps, 1)
            if status != 0:
                raise StageFailed("tokenize", f"mtmd_tokenize: {status}: {llama_log.first_error()}")
            self._chunks = chunks
            count = mtmd_cpp.mtmd_input_chunks_size(chunks)
            yield tuple(self._chunk(index) for index in range(count))

    def encode(self, chunk: ImageChunk) -> Handle:
        """One tile's embeddings, valid until the next call. Raises StageFailed (`encode`)."""
        llama_log.forget()
        status = mtmd_cpp.mtmd_encode_chunk(self._mtmd, self._chunk_pointer(chunk))
        if status != 0:
            raise StageFailed("encode", f"mtmd_encode_chunk: {status}: {llama_log.first_error()}")
        return mtmd_cpp.mtmd_get_output_embd(self._mtmd)

    def decode_image(self, chunk: ImageChunk, embeddings: Handle) -> None:
        """A tile's embeddings through the text model. Raises StageFailed (`decode`)."""
        reached = llama_cpp.llama_pos(0)
        llama_log.forget()
        status = mtmd_cpp.mtmd_helper_decode_image_chunk(
            self._mtmd, self._context, self._chunk_pointer(chunk), embeddings, self.position,
            _SEQUENCE, self._batch_size, ctypes.byref(reached),
            mtmd_cpp.mtmd_helper_post_decode_callback(0), None,
        )  # fmt: skip
        if status != 0:
            raise StageFailed(
                "decode", f"mtmd_helper_decode_image_chunk: {status}: {llama_log.first_error()}"
            )
        self.position = reached.value

    def decode_text(self, ids: tuple[int, ...], *, logits_last: bool) -> None:
        """Ids through the text model, a batch at a time. Raises StageFailed (`decode`)."""
        for start in range(0, len(ids), self._batch_size):
            piece = ids[start : start + self._batch_size]
            for place, token in enumerate(piece):
                self._batch.token[place] = token
                self._batch.pos[place] = self.position + place
                self._batch.n_seq_id[place] = 1
                self._batch.seq_id[place][0] = _SEQUENCE
                last = start + place == len(ids) - 1
                self._batch.logits[place] = logits_last and last
            self._batch.n_tokens = len(piece)
            llama_log.forget()
            status = llama_cpp.llama_decode(self._context, self._batch)
            if status != 0:
                raise StageFailed("decode", f"llama_decode: {status}: {llama_log.first_error()}")
            self.position += len(piece)

    def logits(self) -> NDArray[np.float32]:
        """A copy of the last token's logits (vocabulary). Raises StageFailed (`decode`)."""
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        values = np.ctypeslib.as_array(pointer, shape=(self._n_vocab,)).copy()
        if not np.isfinite(values).all():
            raise StageFailed("decode", "the logits are not finite")
        return values

    def _warm_up(self) -> None:
        """Read the weights in before an image is timed; libmtmd has done so for its own."""
        self.decode_text((0,), logits_last=True)
        self.clear()

    def _chunk(self, index: int) -> Chunk:
        pointer = mtmd_cpp.mtmd_input_chunks_get(self._chunks, index)
        if mtmd_cpp.mtmd_input_chunk_get_type(pointer) != mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
            return ImageChunk(index, mtmd_cpp.mtmd_input_chunk_get_n_tokens(pointer))
        count = ctypes.c_size_t()
        ids = mtmd_cpp.mtmd_input_chunk_get_tokens_text(pointer, ctypes.byref(count))
        text = TextChunk(tuple(ids[: count.value]))
        if not all(0 <= token < self._n_vocab for token in text.ids):
            raise StageFailed(
                "tokenize", "the tokenizer lacks a token that libmtmd puts around images"
            )
        return text

    def _chunk_pointer(self, chunk: ImageChunk) -> Handle:
        return mtmd_cpp.mtmd_input_chunks_get(self._chunks, chunk.index)


def _load_model(path: Path, stack: ExitStack) -> Handle:
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    llama_log.forget()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    if not model:
        raise BundleError(
            f"{path}: llama.cpp cannot load it: {llama_log.first_error()}; "
            "`driftloop bundle check` says more"
        )
    stack.callback(llama_cpp.llama_model_free, model)
    return model


def _make_context(model: Handle, runtime: Runtime, threads: int, stack: ExitStack) -> Handle:
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = runtime.context
    parameters.n_batch = runtime.batch
    parameters.n_threads = threads
    parameters.n_threads_batch = threads
    parameters.type_k = _CACHE_TYPES[runtime.cache_type_k]
    parameters.type_v = _CACHE_TYPES[runtime.cache_type_v]
    parameters.flash_attn_type = _flash_attention(runtime)
    parameters.offload_kqv = False
    llama_log.forget()
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise ArmUnavailable(
            f"llama.cpp cannot make a context of {runtime.context} tokens with a "
            f"{runtime.cache_type_k}/{runtime.cache_type_v} KV cache: {llama_log.first_error()}; "
            "change the contract's runtime"
        )
    stack.callback(llama_cpp.llama_free, context)
    return context


def _load_mmproj(
    path: Path, model: Handle, runtime: Runtime, threads: int, marker: str, stack: ExitStack
) -> Handle:
    parameters = mtmd_cpp.mtmd_context_params_default()
    parameters.use_gpu = False
    parameters.print_timings = False
    parameters.n_threads = threads
    parameters.media_marker = marker.encode()
    parameters.flash_attn_type = _flash_attention(runtime)
    llama_log.forget()
    context = mtmd_cpp.mtmd_init_from_file(os.fsencode(path), model, parameters)
    if not context:
        raise BundleError(
            f"{path}: llama.cpp cannot load it: {llama_log.first_error()}; "
            "`driftloop bundle check` says more"
        )
    stack.callback(mtmd_cpp.mtmd_free, context)
    if not mtmd_cpp.mtmd_support_vision(context):
        raise BundleError(f"{path}: it has no vision tower; build the bundle again")
    return context


def _flash_attention(runtime: Runtime) -> int:
    """On or off, never `auto`: what `auto` chooses may differ from machine to machine."""
    enabled: int = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    disabled: int = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return enabled if runtime.flash_attention else disabled


def _since_ms(begin_ns: int) -> float:
    return (time.perf_counter_ns() - begin_ns) / 1e6
