"""The parts of a `LlamaSession`: each is loaded here and freed by a stack.

What llama.cpp, ggml and libmtmd write meanwhile goes to a Python logger, not to the terminal.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, get_args

from gguf import GGMLQuantizationType
from llama_cpp import llama_cpp, mtmd_cpp

from driftloop.harness.arms.graph_watch import GraphWatch, VisionWatch
from driftloop.harness.contract import CacheType, Runtime
from driftloop.harness.errors import ArmUnavailable, BundleError

Handle = Any
"""A pointer of llama-cpp-python's bindings, which have no types."""

LOGGER: Final = logging.getLogger("driftloop.llama_cpp")
LOGGER.addHandler(logging.NullHandler())
LOGGER.propagate = False

_ERROR: Final = 3
_LEVELS: Final = {1: logging.DEBUG, 2: logging.DEBUG, _ERROR: logging.INFO}
"""ggml_log_level -> Python's. Nothing is above INFO: what stops us becomes an exception."""
_CACHE_TYPES: Final[dict[str, int]] = {
    name: int(GGMLQuantizationType[name.upper()]) for name in get_args(CacheType)
}

_recent_errors: deque[str] = deque(maxlen=8)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _sink(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
    if line := text.decode("utf-8", errors="replace").strip():
        if level == _ERROR:
            _recent_errors.append(line)
        LOGGER.log(_LEVELS.get(level, logging.DEBUG), "%s", line)


def redirect_log() -> None:
    """Send all output to `LOGGER` from now on; importing llama-cpp-python sets its own sink."""
    for library, name in (
        (llama_cpp, "llama_log_set"),
        (mtmd_cpp, "mtmd_log_set"),
        (mtmd_cpp, "mtmd_helper_log_set"),
    ):
        getattr(library, name)(_sink, ctypes.c_void_p(0))


def forget_errors() -> None:
    """Start afresh: `first_error` then returns a later one."""
    _recent_errors.clear()


def first_error() -> str:
    """The first error since `forget_errors`: the later ones are its consequences."""
    return _recent_errors[0] if _recent_errors else "it gave no reason"


def text_model(path: Path, stack: ExitStack) -> Handle:
    """Raises BundleError where llama.cpp cannot load it."""
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    forget_errors()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    if not model:
        raise _not_loaded(path)
    stack.callback(llama_cpp.llama_model_free, model)
    return model


def batch(tokens: int, width: int, stack: ExitStack) -> Handle:
    """Room for that many ids, or, where `width` is not 0, embeddings."""
    made = llama_cpp.llama_batch_init(tokens, width, 1)
    stack.callback(llama_cpp.llama_batch_free, made)
    return made


def context(
    model: Handle, runtime: Runtime, threads: int, watch: GraphWatch | None, stack: ExitStack
) -> Handle:
    """A text context, its graphs shown to `watch`. Raises ArmUnavailable where there is none."""
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = runtime.context
    parameters.n_batch = runtime.batch
    parameters.n_threads = threads
    parameters.n_threads_batch = threads
    parameters.type_k = _CACHE_TYPES[runtime.cache_type_k]
    parameters.type_v = _CACHE_TYPES[runtime.cache_type_v]
    parameters.flash_attn_type = _flash_attention(runtime)
    parameters.offload_kqv = False
    if watch is not None:
        _watched(parameters, watch, stack)
    forget_errors()
    made = llama_cpp.llama_init_from_model(model, parameters)
    if not made:
        raise ArmUnavailable(
            f"llama.cpp cannot make a context of {runtime.context} tokens with a "
            f"{runtime.cache_type_k}/{runtime.cache_type_v} KV cache: {first_error()}; "
            "change the contract's runtime"
        )
    stack.callback(llama_cpp.llama_free, made)
    return made


def mmproj(
    path: Path,
    model: Handle,
    runtime: Runtime,
    threads: int,
    marker: str,
    watch: VisionWatch,
    stack: ExitStack,
) -> Handle:
    """libmtmd's context, its graphs shown to `watch`. Raises BundleError where there is none."""
    parameters = mtmd_cpp.mtmd_context_params_default()
    parameters.use_gpu = False
    parameters.print_timings = False
    parameters.n_threads = threads
    parameters.media_marker = marker.encode()
    parameters.flash_attn_type = _flash_attention(runtime)
    _watched(parameters, watch, stack)
    forget_errors()
    made = mtmd_cpp.mtmd_init_from_file(os.fsencode(path), model, parameters)
    if not made:
        raise _not_loaded(path)
    stack.callback(mtmd_cpp.mtmd_free, made)
    if not mtmd_cpp.mtmd_support_vision(made):
        raise BundleError(f"{path}: it has no vision tower; build the bundle again")
    return made


def _not_loaded(path: Path) -> BundleError:
    return BundleError(
        f"{path}: llama.cpp cannot load it: {first_error()}; `driftloop bundle check` says more"
    )


def _watched(parameters: Handle, watch: GraphWatch, stack: ExitStack) -> None:
    parameters.cb_eval = watch.callback
    # llama.cpp keeps only the callback's address, so the watch has to outlive the context.
    stack.push(lambda *_, kept=watch: False)


def _flash_attention(runtime: Runtime) -> int:
    """On or off, never `auto`: what `auto` chooses may differ from machine to machine."""
    enabled: int = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    disabled: int = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return enabled if runtime.flash_attention else disabled
