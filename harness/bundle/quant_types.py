"""ggml types: which belong in a file of a quant type, and what a type makes of a tensor.

A type whose blocks hold 256 values cannot store rows of 576: the quantizer then takes a type with
smaller blocks, and mentions it only in its log (`tensor_type_fallback` in llama.cpp's
src/llama-quant.cpp).

The yardstick for the error of a GGUF's tensor is llama.cpp's own round trip: the checkpoint's
values to the type's bytes and back, with the functions its quantizer and kernels use. The quantizer
is given f16, so its files go through f16; the converter's do not. A file that this llama.cpp made
without an importance matrix holds the yardstick's very bytes. The quantizers of K- and i-quants
search for scales, so another llama.cpp, or an importance matrix, finds others: `slack` is how far
those may lie away.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from driftloop.harness.errors import BundleError, extra

Way = Literal["through f16", "straight"]
"""From the checkpoint's values to a type's."""

_SINGLE: Final = 1e-6
_THROUGH_F16: Final = 2.0**-11
_FLOATS: Final = ("f32", "f16", "bf16")
_QUANTIZABLE: Final = frozenset(
    (
        *_FLOATS, "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "mxfp4", "nvfp4", "q2_k", "q3_k", "q4_k",
        "q5_k", "q6_k", "tq1_0", "tq2_0", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s",
        "iq1_s", "iq1_m", "iq4_nl", "iq4_xs",
    )
)  # fmt: skip
"""The cases of `ggml_quantize_chunk` in ggml.c; any other type ends the process."""
_SHORTENED, _LENGTHENED = 3.0, 0.5
_SIZE: Final = re.compile(r"_(xl|l|m|s|xs)$")
_COARSEST: Final = {
    "iq3_xxs": "iq2_s", "iq3_xs": "iq3_xxs", "iq3_s": "iq3_s", "iq3_m": "iq3_s",
    "iq2_xxs": "iq2_xxs", "iq2_xs": "iq2_xs", "iq2_s": "iq2_xs", "iq2_m": "iq2_s",
    "iq1_s": "iq1_s", "iq1_m": "iq1_m", "iq4_xs": "iq4_xs",
}  # fmt: skip
"""Where the name is no ggml type, or its mix has a coarser one: `llama_tensor_get_type_impl` and
`llama_ftype_get_default_type` in llama.cpp's src/llama-quant.cpp."""
_DEFAULT: Final = {"iq3_xs": "iq3_s"}
"""Where most of a file is neither of the coarsest type nor of the quant type's name."""
_STANDS_FOR: Final = {"q5_0": "q4_k", "q5_1": "q5_k", "q8_0": "q6_k"}
"""Type that the quantizer falls back to -> the only one it stands in for. The others stand in for
several, of which a file has one: its own."""
_STAND_INS: Final = frozenset((*_STANDS_FOR, "q4_0", "iq4_nl", "f16"))
_BF16_BITS: Final = 9.0
"""bfloat16 rounds as coarsely as this many bits do, whatever space it takes."""


@dataclass(frozen=True)
class Slack:
    """How far a tensor may lie from the yardstick."""

    tensor: float
    """In units of the yardstick's own error."""
    row: float
    """The same for a row."""
    gain: float
    """How much longer the whole tensor may be along the checkpoint's values, as a share of them.

    Rounding moves single values at random, hardly along the tensor. So a scaled tensor shows here
    even where its type rounds more coarsely than the scaling changes it."""
    floor: float
    """Always allowed, in units of the tensor's root mean square."""

    def gains(self, error: float) -> tuple[float, float]:
        """The least and the largest gain over the yardstick's, whose relative error is `error`.
        Searching for scales under an importance matrix shortens a tensor, by up to three times its
        squared relative error."""
        return -self.gain - _SHORTENED * error**2, self.gain + _LENGTHENED * error**2


_SLACK: Final = {
    "f32": Slack(0.7, 1.2, 1e-3, _SINGLE),
    "f16": Slack(0.7, 1.2, 1e-3, _SINGLE),
    "q8_0": Slack(0.7, 1.2, 1e-3, _THROUGH_F16),
    "bf16": Slack(1.2, 2.5, 1e-3, _THROUGH_F16),
}
"""Of types with one right way to round, only what going through f16 first changes: at most 0.5 and
0.57 were measured for q8_0, 0.95 and 2.0 for bf16."""
_COARSE: Final = Slack(2.0, 5.0, 0.015, _THROUGH_F16)
"""Of the others, whose quantizers choose. Measured with importance matrices of log-normal spread 0
to 2.5 on normal, Laplace, Student and column-scaled values, down to three bits: at most 1.8, 4.1
and a gain of -0.063 to +0.0002."""
_SAME_QUANTIZER: Final = Slack(0.3, 1.2, 0.005, _THROUGH_F16)
"""Where this very quantizer is known to have chosen: other last bits of it move few blocks."""


def slack(type_name: str, *, same_quantizer: bool = False) -> Slack:
    """What a tensor of that type is allowed. `same_quantizer`: most tensors beside it hold the
    yardstick's very bytes."""
    return _SLACK.get(type_name, _SAME_QUANTIZER if same_quantizer else _COARSE)


def rounded(
    values: NDArray[np.float32], type_name: str, way: Way = "through f16"
) -> NDArray[np.float32]:
    """`values` (rows, values per row) as a tensor of that ggml type would hold them."""
    return read(stored(values, type_name, way), type_name)


def stored(
    values: NDArray[np.float32], type_name: str, way: Way = "through f16"
) -> NDArray[np.uint8]:
    """The bytes (rows, bytes per row) that llama.cpp makes of `values`. Raises BundleError:
    llama.cpp has no quantizer for the type; ArmUnavailable: llama-cpp-python is not installed."""
    if type_name not in _QUANTIZABLE:
        raise BundleError(
            f"llama.cpp cannot quantize to {type_name}; build the bundle again with another --quant"
        )
    values = np.ascontiguousarray(values, dtype=np.float32)
    if type_name == "f32":
        return values.view(np.uint8)
    if type_name == "f16":
        return _half(values).view(np.uint8)
    if type_name != "bf16":
        if way == "through f16":
            values = _half(values).astype(np.float32)
        # The searches for scales do not end well on infinite values.
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    ggml, (number, block, block_bytes) = _ggml(), layout(type_name)
    rows, width = values.shape
    made = np.empty((rows, width // block * block_bytes), np.uint8)
    # The types that cannot do without an importance matrix get one that prefers no column.
    importance = np.ones(width, np.float32)
    matrix = importance.ctypes.data if ggml.ggml_quantize_requires_imatrix(number) else None
    ggml.ggml_quantize_chunk(number, values.ctypes.data, made.ctypes.data, 0, rows, width, matrix)
    return made


def ways(type_name: str) -> tuple[Way, ...]:
    """How a tensor of that type may have been made, the usual one first."""
    return ("straight",) if type_name in _FLOATS else ("through f16", "straight")


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # beyond f16's range: infinite, as in the file
        return values.astype(np.float16)


def read(raw: NDArray[np.uint8], type_name: str) -> NDArray[np.float32]:
    """Rows of bytes of that ggml type as llama.cpp reads them: (rows, values per row). Raises
    BundleError: llama.cpp cannot read the type; ArmUnavailable: llama-cpp-python is not
    installed."""
    raw = np.ascontiguousarray(raw)
    if type_name == "f32":
        return raw.view(np.float32)
    if type_name == "f16":
        return raw.view(np.float16).astype(np.float32)
    number, block, block_bytes = layout(type_name)
    to_float = _ggml().ggml_get_type_traits(number).contents.to_float
    if not to_float:
        raise BundleError(
            f"llama.cpp cannot read {type_name}; build the bundle again with another --quant"
        )
    values = np.empty((len(raw), raw.shape[1] // block_bytes * block), np.float32)
    to_float(raw.ctypes.data, values.ctypes.data, values.size)
    return values


class _TypeTraits(ctypes.Structure):
    """`struct ggml_type_traits` in ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float_ref", ctypes.c_void_p),
    )


@cache
def _ggml() -> ctypes.CDLL:
    """llama-cpp-python's libggml. A call gives up Python's lock: threads work side by side."""
    with extra("desktop", "checking weights against the checkpoint"):
        from llama_cpp._ggml import libggml
    ggml: ctypes.CDLL = libggml
    ggml.ggml_quantize_requires_imatrix.argtypes = (ctypes.c_int,)
    ggml.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    ggml.ggml_quantize_chunk.argtypes = (
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    )  # fmt: skip
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_get_type_traits.argtypes = (ctypes.c_int,)
    ggml.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    return ggml


@cache
def layout(type_name: str) -> tuple[int, int, int]:
    """ggml's number for a type, values in its block, bytes of a block. Raises KeyError where ggml
    has no such type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    ggml_type = GGMLQuantizationType[type_name.upper()]
    block, block_bytes = GGML_QUANT_SIZES[ggml_type]
    return int(ggml_type), block, block_bytes


def coarsest(quant: str) -> str | None:
    """The ggml type of fewest bits in a file of that quant type; None where it is not known."""
    name = _COARSEST.get(quant) or _SIZE.sub("", quant)
    return name if _bits(name) is not None else None


def is_coarser(type_name: str, quant: str) -> bool:
    """Whether a tensor of that ggml type has no place in a file of that quant type."""
    limit = coarsest(quant)
    return limit is not None and rounds_more_coarsely(type_name, limit)


def asked_for(type_name: str, width: int, quant: str) -> str:
    """The type that the quantizer was asked for where a matrix became `type_name`. Another one only
    where rows of `width` values have no room for its blocks."""
    own = coarsest(quant)
    if own is None or type_name == own or type_name not in _STAND_INS:
        return type_name
    asked = _STANDS_FOR.get(type_name, own)
    return asked if width % block_values(asked) else type_name


def is_its_own(type_name: str, width: int, quant: str) -> bool:
    """Whether a matrix has the type that the quant type is named for, or the stand-in for it. True
    for an unknown quant type."""
    own = coarsest(quant)
    return own is None or asked_for(type_name, width, quant) in {own, quant, _DEFAULT.get(quant)}


def block_values(type_name: str) -> int:
    """How many values a block of that ggml type holds."""
    return layout(type_name)[1]


def type_bits(type_name: str) -> float:
    """Bits a value of a ggml type takes, its share of the block's scales included."""
    _, values, size_bytes = layout(type_name)
    return 8 * size_bytes / values


def rounds_more_coarsely(one: str, other: str) -> bool:
    """Whether ggml type `one` loses more of a tensor than `other` does; False where not known."""
    coarse, fine = _bits(one), _bits(other)
    return coarse is not None and fine is not None and coarse < fine


def _bits(type_name: str) -> float | None:
    """As `type_bits`, by how it rounds; None for no such type."""
    if type_name == "bf16":
        return _BF16_BITS
    try:
        return type_bits(type_name)
    except KeyError:
        return None
