"""What a `LlamaSession` is made of: each part loaded, and its freeing left with a stack."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from llama_cpp import llama_cpp, mtmd_cpp

from harness.arms import llama_log
from harness.arms.graph_watch import GraphWatch, VisionWatch
from harness.contract import Runtime
from harness.errors import ArmUnavailable, BundleError

Handle = Any
"""A pointer that llama-cpp-python's bindings, which have no types, take and give."""

_CACHE_TYPES: Final = {
    "f16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
}


def resolve_vision_threads(threads: int, cores: int) -> int:
    """No more than there are cores: ggml's threads wait for each other by spinning.

    On two cores, four of them take many times as long as two, for the same numbers.
    """
    return min(threads, cores)


def text_model(path: Path, stack: ExitStack) -> Handle:
    """Raises BundleError where llama.cpp cannot load it."""
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    llama_log.forget()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    if not model:
        raise BundleError(
            f"{path}: llama.cpp cannot load it: {llama_log.first_error()}; "
            "`driftloop bundle check` says more"
        )
    stack.callback(llama_cpp.llama_model_free, model)
    return model


def batch(tokens: int, width: int, stack: ExitStack) -> Handle:
    """Room for so many ids where `width` is 0, else for so many embeddings."""
    made = llama_cpp.llama_batch_init(tokens, width, 1)
    stack.callback(llama_cpp.llama_batch_free, made)
    return made


def context(
    model: Handle, runtime: Runtime, threads: int, watch: GraphWatch | None, stack: ExitStack
) -> Handle:
    """A text context, its graphs shown to `watch`. Raises ArmUnavailable where it cannot be."""
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
        parameters.cb_eval = watch.callback
        _keep(watch, stack)
    llama_log.forget()
    made = llama_cpp.llama_init_from_model(model, parameters)
    if not made:
        raise ArmUnavailable(
            f"llama.cpp cannot make a context of {runtime.context} tokens with a "
            f"{runtime.cache_type_k}/{runtime.cache_type_v} KV cache: {llama_log.first_error()}; "
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
    """libmtmd's context, its graphs shown to `watch`. Raises BundleError where it cannot be."""
    parameters = mtmd_cpp.mtmd_context_params_default()
    parameters.use_gpu = False
    parameters.print_timings = False
    parameters.n_threads = threads
    parameters.media_marker = marker.encode()
    parameters.flash_attn_type = _flash_attention(runtime)
    parameters.cb_eval = watch.callback
    _keep(watch, stack)
    llama_log.forget()
    made = mtmd_cpp.mtmd_init_from_file(os.fsencode(path), model, parameters)
    if not made:
        raise BundleError(
            f"{path}: llama.cpp cannot load it: {llama_log.first_error()}; "
            "`driftloop bundle check` says more"
        )
    stack.callback(mtmd_cpp.mtmd_free, made)
    if not mtmd_cpp.mtmd_support_vision(made):
        raise BundleError(f"{path}: it has no vision tower; build the bundle again")
    return made


def _keep(watch: GraphWatch, stack: ExitStack) -> None:
    """llama.cpp keeps but the address of its callback, until the context is freed."""
    stack.push(lambda *_, kept=watch: False)


def _flash_attention(runtime: Runtime) -> int:
    """On or off, never `auto`: what `auto` chooses may differ from machine to machine."""
    enabled: int = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    disabled: int = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return enabled if runtime.flash_attention else disabled
