"""llama-cpp-python's libllama and libmtmd, called function by function as the runner calls them.

One `LlamaSession` is one process of the app: a model and a context, and images one after another.
"""

from __future__ import annotations

import ctypes
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from llama_cpp import llama_cpp, mtmd_cpp

from devices.runner.protocol import Decoding, RunSettings
from harness.arms import host, layers, llama_load, llama_log
from harness.arms.base import StageFailed
from harness.arms.chunks import Chunk, ImageChunk, TextChunk
from harness.arms.graph_watch import GraphWatch, Tensor, VisionWatch
from harness.arms.llama_load import Handle
from harness.arms.passage import Passage
from harness.contract import Prompt, Runtime

_SEQUENCE: Final = 0
_PIECE_BYTES: Final = 256


class LlamaSession:
    """A text model and its mmproj, loaded once; `close` frees them, as does losing the session."""

    def __init__(
        self, text_model: Path, mmproj: Path, runtime: Runtime, marker: str, *, deep: bool = False
    ) -> None:
        """`deep`: passages are shown every layer's output, too.

        Raises BundleError where a file cannot be loaded, ArmUnavailable without a context.
        """
        llama_log.redirect()
        llama_cpp.llama_backend_init()
        cores = host.usable_cores()
        self.threads = runtime.threads_on(cores)
        self.vision_threads = llama_load.resolve_vision_threads(runtime.vision_threads, cores)
        self._batch_size = runtime.batch
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
        self.vocabulary: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        """How many token ids there are."""
        self.width: int = llama_cpp.llama_model_n_embd_inp(self._model)
        """Of an embedding."""
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._ids = llama_load.batch(runtime.batch, 0, stack)
        self._rows = llama_load.batch(runtime.batch, self.width, stack)
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

    def encode(self, chunk: ImageChunk, place: int, passage: Passage) -> tuple[Tensor, Tensor]:
        """One tile's own pixel values (3, height, width) and, by way of `passage`, where it is the
        tile at `place`, its embeddings (tokens, width), as copies. Raises StageFailed (`encode`).
        """
        llama_log.forget()
        with self._vision.tile(place, passage):
            status = mtmd_cpp.mtmd_encode_chunk(self._mtmd, self._chunk_pointer(chunk))
            if status != 0:
                raise StageFailed(
                    "encode", f"mtmd_encode_chunk: {status}: {llama_log.first_error()}"
                )
        pointer = mtmd_cpp.mtmd_get_output_embd(self._mtmd)
        rows = np.ctypeslib.as_array(pointer, shape=(chunk.tokens, self.width))
        return self._vision.pixel_values, rows.copy()

    def decode_embeddings(self, rows: Tensor, *, logits_last: bool) -> None:
        """Embeddings (tokens, width) through the text model, a batch at a time, as libmtmd's
        helper does it. Raises StageFailed (`decode`)."""
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        for start in range(0, len(rows), self._batch_size):
            part = rows[start : start + self._batch_size]
            ctypes.memmove(self._rows.embd, part.ctypes.data, part.nbytes)
            last = start + len(part) == len(rows)
            self._decode(self._rows, len(part), logits_last=logits_last and last)

    def decode_text(self, ids: Sequence[int], *, logits_last: bool) -> None:
        """Ids through the text model, a batch at a time. Raises StageFailed (`decode`)."""
        for start in range(0, len(ids), self._batch_size):
            part = ids[start : start + self._batch_size]
            for place, token in enumerate(part):
                self._ids.token[place] = token
            last = start + len(part) == len(ids)
            self._decode(self._ids, len(part), logits_last=logits_last and last)

    def logits(self) -> Tensor:
        """A copy of the last token's logits (vocabulary)."""
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary,)).copy()

    def prefilling(self, passage: Passage) -> AbstractContextManager[None]:
        """What is decoded in this block goes by way of `passage`, where this session is `deep`."""
        return nullcontext() if self._text is None else self._text.watching(passage)

    def settings(self, runtime: Runtime, max_tokens: int, decoding: Decoding) -> RunSettings:
        """Those in force: sizes as llama.cpp tells them, the rest as it was asked for."""
        return RunSettings(
            context=llama_cpp.llama_n_ctx(self._context),
            batch=llama_cpp.llama_n_batch(self._context),
            micro_batch=llama_cpp.llama_n_ubatch(self._context),
            cache_type_k=runtime.cache_type_k,
            cache_type_v=runtime.cache_type_v,
            flash_attention=runtime.flash_attention,
            max_tokens=max_tokens,
            decoding=decoding,
        )

    def _decode(self, batch: Handle, count: int, *, logits_last: bool) -> None:
        for place in range(count):
            batch.pos[place] = self.position + place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = _SEQUENCE
            batch.logits[place] = False
        batch.logits[count - 1] = logits_last
        batch.n_tokens = count
        llama_log.forget()
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise StageFailed("decode", f"llama_decode: {status}: {llama_log.first_error()}")
        self.position += count

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
        if not all(0 <= token < self.vocabulary for token in text.ids):
            raise StageFailed(
                "tokenize", "the tokenizer lacks a token that libmtmd puts around images"
            )
        return text

    def _chunk_pointer(self, chunk: ImageChunk) -> Handle:
        return mtmd_cpp.mtmd_input_chunks_get(self._chunks, chunk.index)


def _since_ms(begin_ns: int) -> float:
    return (time.perf_counter_ns() - begin_ns) / 1e6
