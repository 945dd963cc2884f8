"""Every tensor of a GGUF against the checkpoint, and those that should be there and are not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from harness.bundle.causes import likely_cause
from harness.bundle.finding import Finding
from harness.bundle.gguf_file import GgufFile, group_of
from harness.bundle.names import checkpoint_name, gguf_name, is_vision
from harness.bundle.places import place_of
from harness.bundle.quant_mix import coarsest, is_coarser, is_its_own
from harness.bundle.safetensors_file import CheckpointTensors
from harness.bundle.tensor_error import as_quantized, measure

_OUTPUT, _EMBEDDINGS = "output.weight", "token_embd.weight"
_HEAD = "lm_head.weight"
_OF_A_LAYER = ("attn", "ffn")
"""Groups of the text model's matrices."""


def tensor_findings(
    gguf: GgufFile, quant: str, tensors: CheckpointTensors, advance: Callable[[], None]
) -> Iterator[Finding]:
    """Faults in the tensors of a file of that quant type, in the file's order; all rows are read.

    `advance` is called once a tensor. Raises BundleError where a tensor's type cannot be read.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        details = pool.map(lambda name: _detail(gguf, name, quant, tensors), gguf.tensors)
        for name, detail in zip(gguf.tensors, details, strict=True):
            if detail:
                yield Finding("tensor", name, *place_of(name), detail)
            advance()
    yield from _another_quant(gguf, quant)
    yield from _missing(gguf, tensors)
    if gguf.turned_back:
        first = next(iter(gguf.turned_back.values()))
        detail = (
            f"ffn_up and ffn_down have each other's name in {_layers(gguf)}, as llama.cpp's "
            "first converters wrote them; libmtmd turns them back when it loads the file"
        )
        yield Finding("tensor", first, *place_of(first), detail, remark=True)


def _layers(gguf: GgufFile) -> str:
    count = len({name.split(".")[2] for name in gguf.turned_back})
    return "1 layer" if count == 1 else f"{count} layers"


def _another_quant(gguf: GgufFile, quant: str) -> Iterator[Finding]:
    """A text model none of whose layers is of its quant type: another file under its name.

    An mmproj may be finer than the text model beside it.
    """
    matrices = [name for name in gguf.tensors if group_of(name) in _OF_A_LAYER]
    if matrices and not any(
        is_its_own(gguf.type_name(name), gguf.shape(name)[-1], quant) for name in matrices
    ):
        first = matrices[0]
        detail = f"{gguf.type_name(first)}; no layer of the file is {quant}, as its name says"
        yield Finding("tensor", first, *place_of(first), detail)


def other_types(gguf: GgufFile, wanted: GgufFile) -> Iterator[Finding]:
    """The first tensor that another file stores in another type: it computes otherwise."""
    other = [
        name
        for name in gguf.tensors
        if name in wanted.tensors and gguf.type_name(name) != wanted.type_name(name)
    ]
    if other:
        first = other[0]
        detail = (
            f"{gguf.type_name(first)}, {wanted.type_name(first)} in the bundle of the other arms; "
            f"{len(other)} of {len(gguf.tensors)} tensors are of another type"
        )
        yield Finding("tensor", first, *place_of(first), detail)


def _detail(gguf: GgufFile, name: str, quant: str, tensors: CheckpointTensors) -> str | None:
    source = checkpoint_name(name)
    if source is None or source not in tensors:
        tied = name == _OUTPUT and _EMBEDDINGS in gguf.tensors
        return _tied(gguf, tensors) if tied else "in the file, and the checkpoint has none"
    if detail := _off(gguf, name, tensors, source):
        return detail
    type_name = gguf.type_name(name)
    if is_coarser(type_name, quant):
        return f"{type_name}, nothing in a {quant} file is coarser than {coarsest(quant)}"
    return None


def _off(gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str) -> str | None:
    if as_quantized(gguf, name, tensors, source):
        return None
    error = measure(gguf, name, tensors, source)
    if error.in_line:
        return None
    cause = likely_cause(gguf, name, tensors, source, error)
    return (
        f"{error.relative:.2g} off the checkpoint's {source}, {error.expected:.2g} is what "
        f"{gguf.type_name(name)} explains: {cause}"
    )


def _tied(gguf: GgufFile, tensors: CheckpointTensors) -> str | None:
    """An output matrix of its own where the checkpoint answers with its embeddings.

    A copy of them does no harm.
    """
    source = checkpoint_name(_EMBEDDINGS) or ""
    if tensors.shape(source) != gguf.shape(_OUTPUT):
        return f"in the file, and the checkpoint ties it to {source}"
    detail = _off(gguf, _OUTPUT, tensors, source)
    return detail and f"untied from the embeddings: {detail}"


def _missing(gguf: GgufFile, tensors: CheckpointTensors) -> Iterator[Finding]:
    """What the checkpoint has a source for; that llama.cpp can do without is nothing to it."""
    vision = any(map(is_vision, gguf.tensors))
    for source in tensors.names:
        name = gguf_name(source)
        if name is None or name in gguf.tensors or is_vision(name) != vision:
            continue
        if name == _OUTPUT and _ties(tensors):
            continue
        yield Finding("tensor", name, *place_of(name), f"missing, the checkpoint has {source}")


def _ties(tensors: CheckpointTensors) -> bool:
    """Whether the checkpoint's output matrix is a copy of its embeddings."""
    source = checkpoint_name(_EMBEDDINGS) or ""
    return (
        source in tensors
        and tensors.shape(source) == tensors.shape(_HEAD)
        and bool(np.array_equal(tensors.stored(source), tensors.stored(_HEAD)))
    )
