"""GGUF files that nobody's converter wrote are refused in one line."""

# ruff: noqa: E501  (the table is read one case a line)

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from driftloop.harness.bundle.gguf_file import GgufFile
from driftloop.harness.errors import BundleError

U32, STRING, ARRAY, U64 = 4, 8, 9, 10


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def key(name: str, number: int) -> bytes:
    return text(name) + struct.pack("<II", U32, number)


def tensor(name: str, *shape: int, kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(keys: tuple[bytes, ...] = (), tensors: tuple[bytes, ...] = (), *, version: int = 3, counts: tuple[int, int] | None = None) -> bytes:  # fmt: skip
    counted = counts or (len(tensors), len(keys))
    header = b"GGUF" + struct.pack("<IQQ", version, *counted) + b"".join((*keys, *tensors))
    return header + bytes(-len(header) % 32 + 1024)


ONE = tensor("a", 4)
DAMAGED: dict[str, tuple[bytes, str]] = {
    "alignment of nothing": (gguf((key("general.alignment", 0),), (ONE,)), "general.alignment is 0, no power of two"),
    "alignment of three": (gguf((key("general.alignment", 3),), (ONE,)), "general.alignment is 3, no power of two"),
    "alignment as a text": (gguf((text("general.alignment") + struct.pack("<I", STRING) + text("32"),)), "general.alignment is '32'"),
    "a key twice": (gguf((key("a", 1), key("a", 2))), "'a' stands in it twice"),
    "a tensor twice": (gguf((), (ONE, ONE)), "'a' stands in it twice"),
    "patches of nothing": (gguf((key("clip.vision.patch_size", 0),)), "the key clip.vision.patch_size cannot be 0; copy"),
    "scale of nothing": (gguf((key("clip.vision.projector.scale_factor", 0),)), "the key clip.vision.projector.scale_factor cannot be 0"),
    "heads of nothing": (gguf((key("llama.attention.head_count", 0),)), "the key llama.attention.head_count cannot be 0"),
    "a width that is a text": (gguf((text("llama.embedding_length") + struct.pack("<I", STRING) + text("x"),)), "the key llama.embedding_length cannot be 'x'"),
    "a number of tokens in place of the tokens": (gguf((key("tokenizer.ggml.tokens", 5),)), "the key tokenizer.ggml.tokens cannot be 5"),
    "tokens that are numbers": (gguf((text("tokenizer.ggml.tokens") + struct.pack("<IIQI", ARRAY, U32, 1, 5),)), "the key tokenizer.ggml.tokens cannot be [5]"),
    "merges in place of a list": (gguf((key("tokenizer.ggml.merges", 5),)), "the key tokenizer.ggml.merges cannot be 5"),
    "an end token that is a text": (gguf((text("tokenizer.ggml.eos_token_id") + struct.pack("<I", STRING) + text("x"),)), "the key tokenizer.ggml.eos_token_id cannot be 'x'"),
    "a context that is a text": (gguf((text("llama.context_length") + struct.pack("<I", STRING) + text("x"),)), "the key llama.context_length cannot be 'x'"),
    "lists in lists": (gguf((text("a") + struct.pack("<IIQ", ARRAY, ARRAY, 1),)), "a list of lists"),
    "a list longer than the file": (gguf((text("a") + struct.pack("<IIQ", ARRAY, U64, 2**60),)), "ends within its header"),
    "texts longer than the file": (gguf((text("a") + struct.pack("<IIQ", ARRAY, STRING, 2**60),)), "ends within its header"),
    "a name longer than the file": (gguf((struct.pack("<Q", 2**63),)), "ends within its header"),
    "a name of no text": (gguf((struct.pack("<Q", 2) + b"\xff\xff" + struct.pack("<II", U32, 1),)), "ends within its header"),
    "a kind of value that is none": (gguf((text("a") + struct.pack("<I", 99),)), "ends within its header"),
    "a type of tensor that is none": (gguf((), (tensor("a", 4, kind=999),)), "999 is not a valid"),
    "tensors without end": (gguf(counts=(2**62, 0)), "no GGUF file"),
    "keys without end": (gguf(counts=(0, 2**62)), "no GGUF file"),
    "dimensions without end": (gguf((), (text("a") + struct.pack("<I", 2**32 - 1),)), "no GGUF file"),
    "a tensor of nothing": (gguf((), (tensor("a", 0),)), "the tensor a has no values"),
    "a tensor without dimensions": (gguf((), (tensor("a"),)), "the tensor a has no values"),
    "a tensor beyond the end": (gguf((), (tensor("a", 4, offset=2**60),)), "truncated"),
    "a tensor larger than the file": (gguf((), (tensor("a", 2**40, 2**40),)), "truncated"),
    "rows of half a block": (gguf((), (tensor("a", 33, kind=8),)), "its rows of 33 are no multiple of 32"),
    "another version": (gguf(version=9), "GGUF version 9 is not known"),
    "something else": (b"PK\x03\x04" + bytes(64), "it does not begin with GGUF"),
    "four bytes": (b"GGUF", "ends within its header"),
    "nothing": (b"", "it is empty"),
}  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_gguf_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, said = DAMAGED[name]
    path = tmp_path / "text.gguf"
    path.write_bytes(content)
    with pytest.raises(BundleError) as refused:
        GgufFile(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
