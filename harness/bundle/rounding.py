"""What a ggml type makes of a tensor: the yardstick for the error a GGUF's tensor may have.

Where gguf-py has a quantizer its result is the yardstick. For the other types it is plain rounding
to as many bits in blocks as small: of its error llama.cpp's k-quants make 0.8 to 1.1, its i-quants
of three bits and more 0.9 to 1.6 (measured on six distributions, with an importance matrix and
without).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SINGLE: Final = 1e-6
_THROUGH_F16: Final = 2.0**-11


@dataclass(frozen=True)
class _Plain:
    """`bits` a value, in blocks of `block` values; symmetric around zero or between its ends."""

    bits: int
    block: int
    symmetric: bool = False


_PLAIN: Final = {
    "q6_k": _Plain(6, 16, symmetric=True),
    "q5_k": _Plain(5, 32),
    "q4_k": _Plain(4, 32),
    "q3_k": _Plain(3, 16, symmetric=True),
    "q2_k": _Plain(2, 16),
    "iq4_nl": _Plain(4, 32),
    "iq4_xs": _Plain(4, 32),
    "nvfp4": _Plain(4, 16, symmetric=True),
    **dict.fromkeys(("iq3_s", "iq3_xxs"), _Plain(3, 32)),
    **dict.fromkeys(("iq2_s", "iq2_xs", "iq2_xxs"), _Plain(2, 16)),
    **dict.fromkeys(("iq1_s", "iq1_m"), _Plain(1, 16)),
}


@dataclass(frozen=True)
class Slack:
    """How far a tensor may lie from the yardstick."""

    tensor: float
    """In units of the yardstick's own error."""
    row: float
    """The same for a row."""
    floor: float
    """Always allowed, in units of the tensor's root mean square."""


_SLACK: Final = {
    "f32": Slack(0.7, 1.2, _SINGLE),
    "f16": Slack(0.7, 1.2, _SINGLE),
    "q8_0": Slack(0.7, 1.2, _THROUGH_F16),
    "bf16": Slack(1.2, 2.5, _THROUGH_F16),
}
"""Of types with one right way to round, only what going through f16 first changes: measured were
at most 0.5 and 0.57 for q8_0, 0.95 and 2.0 for bf16."""
_COARSE: Final = Slack(2.0, 5.0, _THROUGH_F16)
"""Of the others, where quantizers choose; measured down to three bits: at most 1.9 and 2.8."""


def slack(type_name: str) -> Slack:
    """What a tensor of that type is allowed."""
    return _SLACK.get(type_name, _COARSE)


def rounded(values: NDArray[np.float32], type_name: str) -> NDArray[np.float32]:
    """`values` (rows, values per row) as a tensor of that ggml type would hold them."""
    if type_name in _PLAIN:
        return _plain(values, _PLAIN[type_name])
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    ggml_type = GGMLQuantizationType[type_name.upper()]
    with np.errstate(over="ignore"):  # beyond f16's range: infinite, as in the file
        held = dequantize(quantize(values, ggml_type), ggml_type)
    return np.asarray(held, dtype=np.float32).reshape(values.shape)


def _plain(values: NDArray[np.float32], way: _Plain) -> NDArray[np.float32]:
    blocks = values.reshape(-1, way.block)
    if way.symmetric:
        low = np.zeros((len(blocks), 1), np.float32)
        step = np.abs(blocks).max(axis=1, keepdims=True) / (2 ** (way.bits - 1) - 0.5)
    else:
        low = blocks.min(axis=1, keepdims=True)
        step = (blocks.max(axis=1, keepdims=True) - low) / (2**way.bits - 1)
    step[step == 0] = 1
    # Values lie within their block's ends, so no level needs clipping.
    return np.asarray(np.rint((blocks - low) / step) * step + low).reshape(values.shape)
