"""One GGUF quantized with llama.cpp's own quantizer, in a process of its own.

    python -m driftloop.harness.quantize IN OUT TYPE [TENSOR ...]

The tensors named, as regular expressions, are kept in f16.
llama.cpp ends the process where one of its assertions fails; the caller must outlive that.
"""

from __future__ import annotations

import os
import sys

from driftloop.harness.errors import extra


def quant_types() -> dict[str, int]:
    """Type as users write it (`q4_k_m`) -> llama.cpp's number for it; all this build names. Raises
    ArmUnavailable where llama-cpp-python is not installed."""
    with extra("desktop", "quantizing"):
        from llama_cpp import llama_cpp
    prefix = "LLAMA_FTYPE_MOSTLY_"
    names = (name for name in vars(llama_cpp) if name.startswith(prefix))
    return {name.removeprefix(prefix).lower(): getattr(llama_cpp, name) for name in names}


def main(arguments: list[str]) -> int:
    """Quantize one file; llama.cpp's own messages go to stderr. 0 when it worked."""
    source, target, quant, *kept = arguments
    from llama_cpp import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = quant_types()[quant]
    parameters.nthread = os.cpu_count() or 1
    # One entry more, whose pattern is null, ends the list.
    overrides = (llama_cpp.llama_model_tensor_override * (len(kept) + 1))()
    for override, pattern in zip(overrides, kept, strict=False):
        override.pattern, override.type = pattern.encode(), llama_cpp.GGML_TYPE_F16
    if kept:
        parameters.tt_overrides = overrides
    llama_cpp.llama_backend_init()
    return int(llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), parameters))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
