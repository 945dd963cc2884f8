"""Every tensor of a GGUF against the checkpoint, and those that should be there and are not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from driftloop.harness.bundle import tensor_names
from driftloop.harness.bundle.checkpoint_files import CheckpointTensors
from driftloop.harness.bundle.gguf_file import GgufFile
from driftloop.harness.bundle.key_check import Finding
from driftloop.harness.bundle.quant_types import coarsest, is_coarser, is_its_own
from driftloop.harness.bundle.tensor_error import SourcedTensor, as_quantized, likely_cause, measure
from driftloop.harness.bundle.tensor_names import checkpoint_name, gguf_name, is_vision, place_of

_OUTPUT, _EMBEDDINGS = "output.weight", "token_embd.weight"
_EMBEDDINGS_SOURCE = "model.text_model.embed_tokens.weight"
_HEAD = "lm_head.weight"


def tensor_findings(
    gguf: GgufFile, quant: str, tensors: CheckpointTensors, advance: Callable[[], None]
) -> Iterator[Finding]:
    """Faults in the tensors of a file of that quant type, in the file's order; all rows are read.
    `advance` is called once a tensor. Raises BundleError where a tensor's type cannot be read."""
    tied = _OUTPUT if _EMBEDDINGS in gguf.tensors and _HEAD not in tensors else None
    # A copy of tied embeddings does no harm.
    sources = [_EMBEDDINGS if name == tied else name for name in gguf.tensors]
    sourced = {
        name: _sourced(gguf, name, tensors, checkpoint_name(source))
        for name, source in zip(gguf.tensors, sources, strict=True)
    }
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        exact = set()
        exactly = pool.map(lambda one: one is not None and as_quantized(one), sourced.values())
        for name, is_exact in zip(sourced, exactly, strict=True):
            if is_exact:
                exact.add(name)
            advance()
        # Where most tensors of a type are this llama.cpp's own, it made the file: a tensor that is
        # not was changed since.
        types, of_type = Counter(map(gguf.type_name, exact)), Counter(map(gguf.type_name, sourced))

        def fault(name: str) -> str | None:
            tensor, type_name = sourced[name], gguf.type_name(name)
            if tensor is None:
                ties = f"ties it to {_EMBEDDINGS_SOURCE}" if name == tied else "has none"
                return f"in the file, and the checkpoint {ties}"
            if name not in exact:
                most = 2 * types[type_name] > of_type[type_name]
                error = measure(tensor, same_quantizer=most)
                if not error.in_line:
                    return (
                        f"{'untied from the embeddings: ' if name == tied else ''}"
                        f"{error.relative:.2g} off the checkpoint's {tensor.source}, "
                        f"{error.expected:.2g} is what {type_name} explains: "
                        f"{likely_cause(tensor, error)}"
                    )
            if name != tied and is_coarser(type_name, quant):
                return f"{type_name}, nothing in a {quant} file is coarser than {coarsest(quant)}"
            return None

        for name, detail in zip(sourced, pool.map(fault, sourced), strict=True):
            if detail:
                yield _finding(name, detail)
    yield from _another_quant(gguf, quant)
    yield from _missing(gguf, tensors)
    yield from _swapped_ffn(gguf)


def _finding(tensor: str, detail: str, *, remark: bool = False) -> Finding:
    stage, layer = place_of(tensor)
    return Finding("tensor", tensor, stage, detail, layer, remark)


def _sourced(
    gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str | None
) -> SourcedTensor | None:
    """A tensor beside the checkpoint's of that name; None unless there is one of its shape."""
    if source is None or source not in tensors or tensors.shape(source) != gguf.shape(name):
        return None
    return SourcedTensor(gguf, name, tensors, source)


def _another_quant(gguf: GgufFile, quant: str) -> Iterator[Finding]:
    """A text model none of whose layers is of its quant type: another file under its name. An
    mmproj may be finer than the text model beside it."""
    matrices = [name for name in gguf.tensors if tensor_names.group_of(name) in ("attn", "ffn")]
    if matrices and not any(
        is_its_own(gguf.type_name(name), gguf.shape(name)[-1], quant) for name in matrices
    ):
        type_name = gguf.type_name(matrices[0])
        detail = f"{type_name}; no layer of the file is {quant}, as its name says"
        yield _finding(matrices[0], detail)


def _swapped_ffn(gguf: GgufFile) -> Iterator[Finding]:
    if not gguf.swapped_ffn:
        return
    layers = len({name.split(".")[2] for name in gguf.swapped_ffn})
    detail = (
        f"ffn_up and ffn_down have each other's name in {layers} layer{'s' * (layers != 1)}, as "
        "llama.cpp's first converters wrote them; libmtmd turns them back when it loads the file"
    )
    yield _finding(next(iter(gguf.swapped_ffn.values())), detail, remark=True)


def _missing(gguf: GgufFile, tensors: CheckpointTensors) -> Iterator[Finding]:
    """Tensors the checkpoint has and the GGUF lacks, even those llama.cpp would run without."""
    vision = any(map(is_vision, gguf.tensors))
    for source in tensors:
        name = gguf_name(source)
        if name is None or name in gguf.tensors or is_vision(name) != vision:
            continue
        if name != _OUTPUT or not _ties(tensors):
            yield _finding(name, f"missing, the checkpoint has {source}")


def _ties(tensors: CheckpointTensors) -> bool:
    """Whether the checkpoint's output matrix is a copy of its embeddings."""
    return _EMBEDDINGS_SOURCE in tensors and tensors.alike(_EMBEDDINGS_SOURCE, _HEAD)


def other_types(gguf: GgufFile, wanted: GgufFile) -> Iterator[Finding]:
    """The first tensor that another file stores in another type: it computes otherwise."""
    other = [
        name
        for name in gguf.tensors
        if name in wanted.tensors and gguf.type_name(name) != wanted.type_name(name)
    ]
    for first in other[:1]:
        detail = (
            f"{gguf.type_name(first)}, {wanted.type_name(first)} in the bundle of the other arms; "
            f"{len(other)} of {len(gguf.tensors)} tensors are of another type"
        )
        yield _finding(first, detail)


@dataclass(frozen=True)
class TensorFidelity:
    """One tensor of a GGUF against the checkpoint's."""

    name: str
    type_name: str
    size_bytes: int
    relative_error: float | None
    """Root mean square of the difference over that of the checkpoint's tensor; None where there
    is no such tensor, or the values are not finite."""
    expected_error: float | None
    """What the type costs this very tensor."""
    fault: str | None
    """The likely cause where the error is out of line with the type; None where it is not."""


def fidelity(gguf: GgufFile, name: str, tensors: CheckpointTensors) -> TensorFidelity:
    """One tensor, every row of it. Raises BundleError where its type cannot be read."""
    type_name, size_bytes = gguf.type_name(name), gguf.tensors[name].size_bytes
    source = checkpoint_name(name)
    tensor = _sourced(gguf, name, tensors, source)
    if tensor is None:
        fault = f"the checkpoint has no {source} of its shape {gguf.shape(name)}"
        if source is None:
            fault = "belongs to no SmolVLM"
        return TensorFidelity(name, type_name, size_bytes, None, None, fault)
    error = measure(tensor)
    return TensorFidelity(
        name,
        type_name,
        size_bytes,
        error.relative if isfinite(error.relative) else None,
        error.expected if isfinite(error.expected) else None,
        None if error.in_line else likely_cause(tensor, error),
    )


def mmproj_against_checkpoint(mmproj: Path, checkpoint: Path) -> list[TensorFidelity]:
    """The tensors of an mmproj that were not made from this checkpoint's vision tower.

    Empty where all were, whatever their types.

    Raises:
        BundleError: no GGUF, cut short, or of a type that cannot be read.
        CheckpointError: the checkpoint's weights cannot be read.
    """
    gguf, tensors = GgufFile(mmproj), CheckpointTensors(checkpoint)
    every = (fidelity(gguf, name, tensors) for name in gguf.tensors)
    return [tensor for tensor in every if tensor.fault]
