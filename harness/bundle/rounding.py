"""What a ggml type makes of a tensor: the yardstick for the error a GGUF's tensor may have.

The yardstick is llama.cpp's own round trip, with the functions that its quantizer and its kernels
use: the checkpoint's values to the type's bytes and back, by way of f16 where the quantizer made
the file, as it is given f16, and straight where the converter did. A file that this llama.cpp made
without an importance matrix therefore holds the yardstick's very bytes. The quantizers of K- and
i-quants search for scales, so another llama.cpp, or one with an importance matrix, finds others:
`slack` is how far those may lie from the yardstick.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from harness.errors import ArmUnavailable, BundleError

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
"""The cases of `ggml_quantize_chunk` in ggml.c; for any other type it ends the process."""


@dataclass(frozen=True)
class Slack:
    """How far a tensor may lie from the yardstick."""

    tensor: float
    """In units of the yardstick's own error."""
    row: float
    """The same for a row."""
    gain: float
    """How much longer the whole tensor may be along the checkpoint's values, as a share of them.

    Rounding moves single values at random and hardly any of that along the tensor, so a tensor that
    was scaled shows here even where its type rounds more coarsely than the scaling changes it."""
    floor: float
    """Always allowed, in units of the tensor's root mean square."""

    def gains(self, error: float) -> tuple[float, float]:
        """The least and the largest gain over the yardstick's, whose relative error is `error`.

        Searching for scales under an importance matrix shortens a tensor, by up to three times its
        squared relative error.
        """
        return -self.gain - _SHORTENED * error**2, self.gain + _LENGTHENED * error**2


_SHORTENED: Final = 3.0
_LENGTHENED: Final = 0.5
_SLACK: Final = {
    "f32": Slack(0.7, 1.2, 1e-3, _SINGLE),
    "f16": Slack(0.7, 1.2, 1e-3, _SINGLE),
    "q8_0": Slack(0.7, 1.2, 1e-3, _THROUGH_F16),
    "bf16": Slack(1.2, 2.5, 1e-3, _THROUGH_F16),
}
"""Of types with one right way to round, only what going through f16 first changes: measured were
at most 0.5 and 0.57 for q8_0, 0.95 and 2.0 for bf16."""
_COARSE: Final = Slack(2.0, 5.0, 0.015, _THROUGH_F16)
"""Of the others, where quantizers choose. Measured with importance matrices of log-normal spread 0
to 2.5 on normal, Laplace, Student and column-scaled values, down to three bits: at most 1.8, 4.1
and a gain of -0.063 to +0.0002."""


_SAME_QUANTIZER: Final = Slack(0.3, 1.2, 0.005, _THROUGH_F16)
"""Where this very quantizer is known to have chosen: other last bits of it move few blocks."""


def slack(type_name: str, *, same_quantizer: bool = False) -> Slack:
    """What a tensor of that type is allowed.

    `same_quantizer`: most tensors beside it hold the yardstick's very bytes.
    """
    return _SLACK.get(type_name, _SAME_QUANTIZER if same_quantizer else _COARSE)


def rounded(
    values: NDArray[np.float32], type_name: str, way: Way = "through f16"
) -> NDArray[np.float32]:
    """`values` (rows, values per row) as a tensor of that ggml type would hold them."""
    return read(stored(values, type_name, way), type_name)


def stored(
    values: NDArray[np.float32], type_name: str, way: Way = "through f16"
) -> NDArray[np.uint8]:
    """The bytes (rows, bytes per row) that llama.cpp makes of `values`.

    Raises:
        BundleError: llama.cpp has no quantizer for the type.
        ArmUnavailable: llama-cpp-python is not installed.
    """
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
    ggml, (number, block, block_bytes) = _ggml(), _layout(type_name)
    rows, width = values.shape
    made = np.empty((rows, width // block * block_bytes), np.uint8)
    needs_weights = ggml.ggml_quantize_requires_imatrix(number)
    importance = np.ones(width, np.float32) if needs_weights else None
    ggml.ggml_quantize_chunk(
        number, values.ctypes.data, made.ctypes.data, 0, rows, width,
        importance.ctypes.data if importance is not None else None,
    )  # fmt: skip
    return made


def ways(type_name: str) -> tuple[Way, ...]:
    """How a tensor of that type may have been made, the usual one first."""
    return ("straight",) if type_name in _FLOATS else ("through f16", "straight")


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # beyond f16's range: infinite, as in the file
        return values.astype(np.float16)


def read(raw: NDArray[np.uint8], type_name: str) -> NDArray[np.float32]:
    """Rows of bytes of that ggml type as llama.cpp reads them: (rows, values per row).

    Raises:
        BundleError: llama.cpp cannot read the type.
        ArmUnavailable: llama-cpp-python is not installed.
    """
    raw = np.ascontiguousarray(raw)
    if type_name == "f32":
        return raw.view(np.float32)
    if type_name == "f16":
        return raw.view(np.float16).astype(np.float32)
    number, block, block_bytes = _layout(type_name)
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
        (
            "to_float",
            ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64),
        ),
        ("from_float_ref", ctypes.c_void_p),
    )


@cache
def _ggml() -> ctypes.CDLL:
    """llama-cpp-python's libggml. A call gives up Python's lock: threads work side by side."""
    try:
        from llama_cpp._ggml import libggml
    except ImportError as error:
        raise ArmUnavailable(
            "holding weights against the checkpoint needs llama-cpp-python: "
            "install driftloop[desktop]"
        ) from error
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
def _layout(type_name: str) -> tuple[int, int, int]:
    """ggml's number for a type, values in its block, bytes of a block."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    ggml_type = GGMLQuantizationType[type_name.upper()]
    block, block_bytes = GGML_QUANT_SIZES[ggml_type]
    return int(ggml_type), block, block_bytes
