"""The yardstick of a type is llama.cpp's own round trip, and what the type explains is no fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from driftloop.harness.bundle.checkpoint_files import CheckpointTensors
from driftloop.harness.bundle.gguf_file import GgufFile
from driftloop.harness.bundle.quant_types import rounded, slack, stored
from driftloop.harness.bundle.tensor_check import TensorFidelity, fidelity
from driftloop.harness.bundle.tensor_error import SourcedTensor, as_quantized
from driftloop.harness.bundle.tensor_names import checkpoint_name

from .bundle_factory import Rows, write_gguf

NAME = "blk.0.ffn_down.weight"
SOURCE = str(checkpoint_name(NAME))
K_QUANTS = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k")
OTHERS = ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "iq4_xs", "iq3_s")


def weights() -> Rows:
    """Columns of different sizes, as a trained matrix has them."""
    random = np.random.default_rng(3)
    sizes = np.exp(0.5 * random.standard_normal(256))
    return (0.02 * random.standard_normal((48, 256)) * sizes).astype(np.float32)


def judged(folder: Path, type_name: str, packed: NDArray[np.uint8]) -> tuple[TensorFidelity, bool]:
    """`packed` against `weights()`, and whether it is exactly what llama.cpp makes of them."""
    save_file({SOURCE: weights()}, folder / "model.safetensors")
    write_gguf(folder / "model.gguf", "llama", {NAME: packed}, {NAME: type_name})
    file, tensors = GgufFile(folder / "model.gguf"), CheckpointTensors(folder)
    exact = as_quantized(SourcedTensor(file, NAME, tensors, SOURCE))
    return fidelity(file, NAME, tensors), exact


def fault_of(folder: Path, type_name: str, change: Callable[[Rows], Rows]) -> str:
    """Of a tensor that was changed once it had been quantized, and quantized again."""
    packed = stored(change(rounded(weights(), type_name)), type_name)
    return judged(folder, type_name, packed)[0].fault or ""


@pytest.mark.parametrize("type_name", [*K_QUANTS, *OTHERS])
def test_what_llama_cpp_makes_of_the_checkpoint_is_known_by_its_bytes(
    type_name: str, tmp_path: Path
) -> None:
    found, exact = judged(tmp_path, type_name, stored(weights(), type_name))
    assert exact
    assert found.fault is None
    assert found.relative_error == found.expected_error


@pytest.mark.parametrize("type_name", [*K_QUANTS, "q5_0", "q4_0", "iq4_xs", "iq3_s"])
def test_a_quantizer_with_an_importance_matrix_is_in_line(type_name: str, tmp_path: Path) -> None:
    """Columns are scaled before the search for scales and after."""
    from llama_cpp._ggml import libggml

    values = weights()
    importance = np.exp(np.random.default_rng(5).standard_normal(256)).astype(np.float32)
    packed = np.empty_like(stored(values, type_name))
    libggml.ggml_quantize_chunk(
        int(gguf.GGMLQuantizationType[type_name.upper()]), values.ctypes.data, packed.ctypes.data,
        0, *values.shape, importance.ctypes.data,
    )  # fmt: skip
    found, exact = judged(tmp_path, type_name, packed)
    assert not exact
    assert found.fault is None


def scaled(rows: Rows) -> Rows:
    return rows * np.float32(1.05)


def one_row_scaled(rows: Rows) -> Rows:
    rows[7] *= 4
    return rows


def two_rows_exchanged(rows: Rows) -> Rows:
    rows[[3, 40]] = rows[[40, 3]]
    return rows


@pytest.mark.parametrize(
    ("type_name", "change", "fault"),
    [
        *(
            (name, scaled, r"scaled by 1\.05")
            for name in ("q6_k", "q5_k", "q4_k", "q8_0", "q5_0", "q4_0", "iq4_xs")
        ),
        # Searching for scales again leaves other values: found, though not named.
        ("q3_k", scaled, ".+"),
        *(
            (name, one_row_scaled, r"scaled by (4|3\.98\d) in 1 of 48 rows: 7")
            for name in (*K_QUANTS, "q8_0", "q4_0", "iq4_xs")
        ),
        *(
            (name, two_rows_exchanged, "rows 3 and 40 exchanged")
            for name in (*K_QUANTS, "q8_0", "q4_0", "iq4_xs")
        ),
        # Every q4_k tensor has at most sixteen different values in a block.
        ("q4_k", lambda rows: rows + np.float32(0.01), "(?!.*quantized twice).+"),
    ],
)
def test_no_type_is_too_coarse_for_a_fault_to_show(
    type_name: str, change: Callable[[Rows], Rows], fault: str, tmp_path: Path
) -> None:
    assert re.fullmatch(fault, fault_of(tmp_path, type_name, change))


@pytest.mark.parametrize(
    ("once", "then"), [("q4_k", "q8_0"), ("q2_k", "q6_k"), ("q3_k", "f16"), ("q4_0", "q5_k")]
)
def test_a_tensor_that_went_through_a_coarser_type_is_said_to_be_quantized_twice(
    once: str, then: str, tmp_path: Path
) -> None:
    found, _ = judged(tmp_path, then, stored(rounded(weights(), once), then))
    assert found.fault == f"has lost as much as {once} loses: quantized twice"


def test_types_with_one_way_to_round_leave_the_least_room() -> None:
    assert slack("f16").tensor < slack("q4_k").tensor
    assert slack("f16").gains(2e-4)[1] < 0.01 < slack("q4_k").gains(0.08)[1]
