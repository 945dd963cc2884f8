"""Which ggml types belong into a file of a quant type, and what its weights really take.

A type whose blocks hold 256 values cannot store rows of 576: the quantizer then takes a type with
smaller blocks, and says so only in its log. Source: `tensor_type_fallback` in llama.cpp's
src/llama-quant.cpp.
"""

from __future__ import annotations

import re
from collections import Counter
from math import prod
from typing import Final

from pydantic import BaseModel, ConfigDict

from harness.bundle.gguf_file import GgufFile, group_of

_SIZE: Final = re.compile(r"_(xl|l|m|s|xs)$")
_COARSEST: Final = {
    "iq3_xxs": "iq2_s",
    "iq3_xs": "iq3_xxs",
    "iq3_s": "iq3_s",
    "iq3_m": "iq3_s",
    "iq2_xxs": "iq2_xxs",
    "iq2_xs": "iq2_xs",
    "iq2_s": "iq2_xs",
    "iq2_m": "iq2_s",
    "iq1_s": "iq1_s",
    "iq1_m": "iq1_m",
    "iq4_xs": "iq4_xs",
}
"""Where the name is no ggml type, or its mix has a coarser one: `llama_tensor_get_type_impl` and
`llama_ftype_get_default_type` in llama.cpp's src/llama-quant.cpp."""
_DEFAULT: Final = {"iq3_xs": "iq3_s"}
"""Where most of a file is neither of the coarsest type nor of the quant type's name."""
_STANDS_FOR: Final = {"q5_0": "q4_k", "q5_1": "q5_k", "q8_0": "q6_k"}
"""Type that the quantizer falls back to -> the only one it stands in for: `tensor_type_fallback` in
the same file. The others stand in for several, of which a file has one: its own."""
_STAND_INS: Final = frozenset((*_STANDS_FOR, "q4_0", "iq4_nl", "f16"))
_BF16_BITS: Final = 9.0
"""bfloat16 rounds as coarsely as this many bits do, whatever room it takes."""
_MATRICES: Final = frozenset(
    ("token_embd", "output", "attn", "ffn", "projector", "vision_attn", "vision_ffn")
)
"""Groups that the quantizer quantizes; patch and position embeddings and norms it leaves alone."""


def coarsest(quant: str) -> str | None:
    """The ggml type of fewest bits in a file of that quant type; None where it is not known."""
    name = _COARSEST.get(quant) or _SIZE.sub("", quant)
    return name if _bits(name) is not None else None


def is_coarser(type_name: str, quant: str) -> bool:
    """Whether a tensor of that ggml type has no place in a file of that quant type."""
    limit = coarsest(quant)
    return limit is not None and rounds_more_coarsely(type_name, limit)


def asked_for(type_name: str, width: int, quant: str) -> str:
    """The type that a quant type's quantizer asked for where a matrix became `type_name`.

    Another one only where rows of `width` values have no room for its blocks.
    """
    own = coarsest(quant)
    if own is None or type_name == own or type_name not in _STAND_INS:
        return type_name
    asked = _STANDS_FOR.get(type_name, own)
    return asked if width % block_values(asked) else type_name


def is_its_own(type_name: str, width: int, quant: str) -> bool:
    """Whether a matrix has what the quant type is named for, or the stand-in for that.

    True for a quant type nobody knows.
    """
    own = coarsest(quant)
    named = {own, quant, _DEFAULT.get(quant)}
    return own is None or asked_for(type_name, width, quant) in named


def block_values(type_name: str) -> int:
    """How many values a block of that ggml type holds."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    values, _ = GGML_QUANT_SIZES[GGMLQuantizationType[type_name.upper()]]
    return int(values)


def type_bits(type_name: str) -> float:
    """Bits a value of a ggml type takes, its block's scales shared out."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    values, size_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[type_name.upper()]]
    return float(8 * size_bytes / values)


def rounds_more_coarsely(one: str, other: str) -> bool:
    """Whether ggml type `one` loses more of a tensor than `other` does; False where not known."""
    coarse, fine = _bits(one), _bits(other)
    return coarse is not None and fine is not None and coarse < fine


def _bits(type_name: str) -> float | None:
    """As `type_bits`, by how it rounds; None for no such type."""
    from gguf import GGMLQuantizationType

    if type_name == "bf16":
        return _BF16_BITS
    known = type_name.upper() in GGMLQuantizationType.__members__
    return type_bits(type_name) if known else None


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
