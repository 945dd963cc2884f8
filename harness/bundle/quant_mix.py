"""Which ggml types belong into a file of a quant type: no quantizer goes below its own mix."""

from __future__ import annotations

import re
from typing import Final

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
_BF16_BITS: Final = 9.0
"""bfloat16 rounds as coarsely as this many bits do, whatever room it takes."""


def coarsest(quant: str) -> str | None:
    """The ggml type of fewest bits in a file of that quant type; None where it is not known."""
    name = _COARSEST.get(quant) or _SIZE.sub("", quant)
    return name if _bits(name) is not None else None


def is_coarser(type_name: str, quant: str) -> bool:
    """Whether a tensor of that ggml type has no place in a file of that quant type."""
    return _beyond(type_name, quant) < 0


def is_finer(type_name: str, quant: str) -> bool:
    """Whether a tensor of that ggml type has more bits a value than that quant type asks for."""
    return _beyond(type_name, quant) > 0


def has_blocks(width: int, quant: str) -> bool:
    """Whether rows of so many values can be stored in that quant type's blocks."""
    limit = coarsest(quant)
    return limit is not None and width % block_values(limit) == 0


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


def _beyond(type_name: str, quant: str) -> float:
    """Bits a value above the coarsest type of that quant type; 0 where one is not known."""
    limit = coarsest(quant)
    found, allowed = _bits(type_name), None if limit is None else _bits(limit)
    return 0.0 if found is None or allowed is None else found - allowed


def _bits(type_name: str) -> float | None:
    """As `type_bits`, by how it rounds; None for no such type."""
    from gguf import GGMLQuantizationType

    if type_name == "bf16":
        return _BF16_BITS
    known = type_name.upper() in GGMLQuantizationType.__members__
    return type_bits(type_name) if known else None
