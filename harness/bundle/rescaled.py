"""Values that are the wanted ones times a constant."""

from __future__ import annotations

from typing import Final

import numpy as np

from harness.bundle.rounding import rounded, slack
from harness.bundle.tensor_error import Rows, squared_difference

_TWICE_ROUNDED: Final = 3.0
"""Values that were stored, scaled and stored again may be so many roundings off."""
_MOST: Final = 0.5
"""What a factor leaves unexplained is less than this part of the values and of the difference."""
_ZERO: Final = np.float32(0)


def factor(found: Rows, wanted: Rows, type_name: str) -> str | None:
    """The constant that makes `wanted` `found` but for rounding; None where there is none."""
    # What rounding does to the values it does to their multiples too, so it cancels.
    plain = rounded(wanted, type_name)
    power = _size(plain) ** 2
    scale = float(np.mean(plain * found, dtype=np.float64)) / power if power else 0.0
    if not np.isfinite(scale) or not scale:
        return None
    scaled = (wanted * np.float32(scale)).astype(np.float32)
    held = rounded(scaled, type_name)
    off = _size(found, held)
    limit = _TWICE_ROUNDED * _size(held, scaled) + slack(type_name).floor * _size(scaled)
    if off > min(limit, _MOST * _size(found), _MOST * _size(found, plain)):
        return None
    said = f"{scale:.3f}".rstrip("0").rstrip(".") if 0.1 < abs(scale) < 100 else f"{scale:.3g}"
    return None if said == "1" else said


def apart(found: Rows, wanted: Rows) -> float:
    """Relative root mean square of the difference."""
    return _size(found, wanted) / (_size(wanted) or 1.0)


def _size(one: Rows, other: Rows | np.float32 = _ZERO) -> float:
    """Root mean square of the difference."""
    return float(np.sqrt(squared_difference(one, other).mean()))
