"""Every tensor of a GGUF against the checkpoint, and those that should be there and are not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from harness.bundle.checkpoint_files import CheckpointTensors
from harness.bundle.diagnosis import likely_cause, place_of
from harness.bundle.finding import Finding
from harness.bundle.gguf_file import GgufFile, group_of
from harness.bundle.names import checkpoint_name, gguf_name, is_vision
from harness.bundle.quant_mix import coarsest, is_coarser, is_its_own
from harness.bundle.tensor_error import as_quantized, fits, measure

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
    look = _Look(gguf, quant, tensors)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, exact in zip(gguf.tensors, pool.map(look.is_exact, gguf.tensors), strict=True):
            look.note(name, exact=exact)
            advance()
        details = pool.map(look.detail, gguf.tensors)
        for name, detail in zip(gguf.tensors, details, strict=True):
            if detail:
                yield Finding("tensor", name, *place_of(name), detail)
    yield from _another_quant(gguf, quant)
    yield from _missing(gguf, tensors)
    yield from _turned_back(gguf)


class _Look:
    """One file, first for the tensors that are exactly llama.cpp's, then for what the rest are."""

    def __init__(self, gguf: GgufFile, quant: str, tensors: CheckpointTensors) -> None:
        self._gguf = gguf
        self._quant = quant
        self._tensors = tensors
        self._exact: set[str] = set()
        self._of_type = Counter(map(gguf.type_name, gguf.tensors))
        self._exact_of_type: Counter[str] = Counter()

    def is_exact(self, name: str) -> bool:
        """Whether a tensor's bytes are the very ones that llama.cpp makes of the checkpoint's."""
        source = self._source(name)
        return source is not None and as_quantized(self._gguf, name, self._tensors, source)

    def note(self, name: str, *, exact: bool) -> None:
        """Keep what `is_exact` says; `detail` wants to know it of every tensor."""
        if exact:
            self._exact.add(name)
            self._exact_of_type[self._gguf.type_name(name)] += 1

    def detail(self, name: str) -> str | None:
        """What is wrong with a tensor; None where nothing is."""
        source, type_name = self._source(name), self._gguf.type_name(name)
        if source is None:
            return self._without_source(name)
        if name not in self._exact and (off := self._off(name, source)):
            return f"untied from the embeddings: {off}" if self._is_tied(name) else off
        if not self._is_tied(name) and is_coarser(type_name, self._quant):
            finest = coarsest(self._quant)
            return f"{type_name}, nothing in a {self._quant} file is coarser than {finest}"
        return None

    def _source(self, name: str) -> str | None:
        """The checkpoint's tensor of the same shape; a copy of tied embeddings does no harm."""
        source = checkpoint_name(_EMBEDDINGS if self._is_tied(name) else name)
        if source is None or source not in self._tensors:
            return None
        return source if self._tensors.shape(source) == self._gguf.shape(name) else None

    def _is_tied(self, name: str) -> bool:
        """An output matrix where the checkpoint has none, as it answers with its embeddings."""
        own = name == _OUTPUT and _EMBEDDINGS in self._gguf.tensors
        return own and _HEAD not in self._tensors

    def _without_source(self, name: str) -> str:
        if self._is_tied(name):
            return f"in the file, and the checkpoint ties it to {checkpoint_name(_EMBEDDINGS)}"
        return "in the file, and the checkpoint has none"

    def _off(self, name: str, source: str) -> str | None:
        type_name = self._gguf.type_name(name)
        # The others tell that the file is this llama.cpp's; one that is not was changed since.
        most = 2 * self._exact_of_type[type_name] > self._of_type[type_name]
        error = measure(self._gguf, name, self._tensors, source, same_quantizer=most)
        if error.in_line:
            return None
        cause = likely_cause(self._gguf, name, self._tensors, source, error)
        return (
            f"{error.relative:.2g} off the checkpoint's {source}, {error.expected:.2g} is what "
            f"{type_name} explains: {cause}"
        )


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


def _turned_back(gguf: GgufFile) -> Iterator[Finding]:
    if not gguf.turned_back:
        return
    first = next(iter(gguf.turned_back.values()))
    layers = len({name.split(".")[2] for name in gguf.turned_back})
    detail = (
        f"ffn_up and ffn_down have each other's name in {layers} layer{'s' * (layers != 1)}, as "
        "llama.cpp's first converters wrote them; libmtmd turns them back when it loads the file"
    )
    yield Finding("tensor", first, *place_of(first), detail, remark=True)


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
    """One tensor, every row of it.

    Raises:
        BundleError: its type cannot be read.
    """
    type_name, size_bytes = gguf.type_name(name), gguf.size_bytes(name)
    source = checkpoint_name(name)
    if source is None or not fits(gguf, name, tensors):
        fault = (
            "belongs to no SmolVLM"
            if source is None
            else f"the checkpoint has no {source} of its shape {gguf.shape(name)}"
        )
        return TensorFidelity(name, type_name, size_bytes, None, None, fault)
    error = measure(gguf, name, tensors, source)
    return TensorFidelity(
        name,
        type_name,
        size_bytes,
        error.relative if isfinite(error.relative) else None,
        error.expected if isfinite(error.expected) else None,
        None if error.in_line else likely_cause(gguf, name, tensors, source, error),
    )


def against_checkpoint(path: Path, checkpoint: Path) -> Iterator[TensorFidelity]:
    """Every tensor of the GGUF at `path`, in its order, against the checkpoint's folder.

    Raises:
        BundleError: no GGUF, cut short, or of a type that cannot be read.
        CheckpointError: the checkpoint's weights cannot be read.
    """
    gguf, tensors = GgufFile(path), CheckpointTensors(checkpoint)
    for name in gguf.tensors:
        yield fidelity(gguf, name, tensors)


def mmproj_against_checkpoint(mmproj: Path, checkpoint: Path) -> list[TensorFidelity]:
    """The tensors of an mmproj that were not made from this checkpoint's vision tower.

    Empty where all were, whatever their types. Raises as `against_checkpoint` does.
    """
    return [tensor for tensor in against_checkpoint(mmproj, checkpoint) if tensor.fault]
