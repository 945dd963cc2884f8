"""How many bits a weight takes in a file, and where llama.cpp silently took another type.

A type whose blocks hold 256 values cannot store rows of 576: the quantizer then takes a type with
smaller blocks, and says so only in its log. Source: `tensor_type_fallback` in llama.cpp's
src/llama-quant.cpp.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Final

from pydantic import BaseModel, ConfigDict

from harness.bundle.gguf_file import GgufFile, group_of
from harness.bundle.quant_mix import asked_for, block_values, type_bits

_MATRICES: Final = frozenset(
    ("token_embd", "output", "attn", "ffn", "projector", "vision_attn", "vision_ffn")
)
"""Groups that the quantizer quantizes; patch and position embeddings and norms it leaves alone."""


class Fallback(BaseModel):
    """Matrices that are of another type than their file's quant type asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meant: str
    """The ggml type that was asked for."""
    became: str
    width: int
    """Values in a row."""
    block: int
    """Values in a block of the type that was asked for; `width` is no multiple of it."""
    tensors: int


class EffectiveBits(BaseModel):
    """Of one GGUF."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    per_weight: float
    """Bits of all its tensors, their scales included, over the number of their values."""
    meant: float
    """The same had every matrix got the type that was asked for."""
    matrices: int
    """How many tensors the quant type was asked for."""
    fallbacks: tuple[Fallback, ...] = ()
    """The most frequent first."""


def effective_bits(gguf: GgufFile, quant: str) -> EffectiveBits:
    """As the tensors of a file of that quant type are; a type nobody knows has no fall-backs."""
    bits = saved = 0.0
    values = matrices = 0
    fallen: Counter[tuple[str, str, int, int]] = Counter()
    for name in gguf.tensors:
        size = prod(gguf.shape(name))
        values += size
        bits += 8 * gguf.size_bytes(name)
        if not _is_matrix(gguf, name):
            continue
        matrices += 1
        type_name, width = gguf.type_name(name), gguf.shape(name)[-1]
        meant = asked_for(type_name, width, quant)
        if meant != type_name:
            fallen[meant, type_name, width, block_values(meant)] += 1
            saved += size * (type_bits(type_name) - type_bits(meant))
    return EffectiveBits(
        per_weight=round(bits / values, 3),
        meant=round((bits - saved) / values, 3),
        matrices=matrices,
        fallbacks=tuple(
            Fallback(meant=meant, became=became, width=width, block=block, tensors=count)
            for (meant, became, width, block), count in fallen.most_common()
        ),
    )


def fallback_line(what: str, bits: EffectiveBits) -> str | None:
    """One line on the fall-backs of a file, called `what`; None where there are none."""
    if not bits.fallbacks:
        return None
    became: Counter[str] = Counter()
    for one in bits.fallbacks:
        became[one.became] += one.tensors
    (most, count), *others = became.most_common()
    words = _listed(
        [
            f"{count} of {bits.matrices} matrices became {most}",
            *(f"{number} {name}" for name, number in others),
        ]
    )
    widths = _listed([str(width) for width in sorted({one.width for one in bits.fallbacks})])
    blocks = _listed([str(block) for block in sorted({one.block for one in bits.fallbacks})])
    return (
        f"{what}: {words}, as rows of {widths} are no multiple of {blocks}: "
        f"{bits.per_weight:.1f} bits a weight instead of {bits.meant:.1f}"
    )


def _is_matrix(gguf: GgufFile, name: str) -> bool:
    is_weight = name.endswith(".weight") and len(gguf.shape(name)) > 1
    return is_weight and group_of(name) in _MATRICES


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
