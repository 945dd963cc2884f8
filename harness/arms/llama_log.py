"""Where llama.cpp, ggml and libmtmd write on this host: a Python logger, not the terminal."""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from typing import Final

from llama_cpp import llama_cpp, mtmd_cpp

LOGGER: Final = logging.getLogger("driftloop.llama_cpp")
LOGGER.addHandler(logging.NullHandler())
LOGGER.propagate = False

_ERROR: Final = 3
_LEVELS: Final = {1: logging.DEBUG, 2: logging.DEBUG, _ERROR: logging.INFO}
"""ggml_log_level -> Python's. What stops us becomes an exception; nothing here is above INFO."""

_recent_errors: deque[str] = deque(maxlen=8)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _sink(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
    line = text.decode("utf-8", errors="replace").strip()
    if not line:
        return
    if level == _ERROR:
        _recent_errors.append(line)
    LOGGER.log(_LEVELS.get(level, logging.DEBUG), "%s", line)


def redirect() -> None:
    """Send everything here from now on; llama-cpp-python sets its own sink when imported."""
    nothing = ctypes.c_void_p(0)
    for set_sink in (
        llama_cpp.llama_log_set, mtmd_cpp.mtmd_log_set, mtmd_cpp.mtmd_helper_log_set
    ):  # fmt: skip
        set_sink(_sink, nothing)


def forget() -> None:
    """Start afresh: `first_error` speaks of what comes after."""
    _recent_errors.clear()


def first_error() -> str:
    """The first error since `forget`: the cause, of which the later ones are consequences."""
    return _recent_errors[0] if _recent_errors else "it gave no reason"
