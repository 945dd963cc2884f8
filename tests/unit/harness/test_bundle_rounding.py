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

from harness.bundle.checkpoint_files import CheckpointTensors
from harness.bundle.gguf_file import GgufFile
from harness.bundle.names import checkpoint_name
from harness.bundle.rounding import rounded, slack, stored
from harness.bundle.tensor_check import TensorFidelity, fidelity
from harness.bundle.tensor_error import as_quantized

NAME = "blk.0.ffn_down.weight"
Rows = NDArray[np.float32]
K_QUANTS = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k")
OTHERS = ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "iq4_xs", "iq3_s")


def weights(seed: int = 3) -> Rows:
    """Columns of different sizes, as a trained matrix has them."""
    random = np.random.default_rng(seed)
    sizes = np.exp(0.5 * random.standard_normal(256))
    return (0.02 * random.standard_normal((48, 256)) * sizes).astype(np.float32)


def written(
    folder: Path, values: Rows, type_name: str, packed: NDArray[np.uint8]
) -> tuple[GgufFile, CheckpointTensors]:
    save_file({str(checkpoint_name(NAME)): values}, folder / "model.safetensors")
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_tensor(NAME, packed, raw_dtype=gguf.GGMLQuantizationType[type_name.upper()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(folder / "model.gguf"), CheckpointTensors(folder)


def looked_at(folder: Path, type_name: str, change: Callable[[Rows], Rows]) -> TensorFidelity:
    """A tensor that was changed once it had been quantized, and quantized again."""
    values = weights()
    packed = stored(change(rounded(values, type_name)), type_name)
    file, tensors = written(folder, values, type_name, packed)
    return fidelity(file, NAME, tensors)


@pytest.mark.parametrize("type_name", [*K_QUANTS, *OTHERS])
def test_what_llama_cpp_makes_of_the_checkpoint_is_known_by_its_bytes(
    type_name: str, tmp_path: Path
) -> None:
    values = weights()
    file, tensors = written(tmp_path, values, type_name, stored(values, type_name))
    assert as_quantized(file, NAME, tensors, str(checkpoint_name(NAME)))
    found = fidelity(file, NAME, tensors)
    assert found.fault is None
    assert found.relative_error == found.expected_error


@pytest.mark.parametrize("type_name", [*K_QUANTS, "q5_0", "q4_0", "iq4_xs", "iq3_s"])
def test_a_quantizer_that_weighs_columns_otherwise_is_in_line(
    type_name: str, tmp_path: Path
) -> None:
    """As with an importance matrix: columns are scaled before the search for scales and after."""
    values = weights()
    importance = np.exp(np.random.default_rng(5).standard_normal(256)).astype(np.float32)
    packed = with_importance(values, type_name, importance)
    file, tensors = written(tmp_path, values, type_name, packed)
    assert not as_quantized(file, NAME, tensors, str(checkpoint_name(NAME)))
    assert fidelity(file, NAME, tensors).fault is None


def with_importance(values: Rows, type_name: str, importance: Rows) -> NDArray[np.uint8]:
    from llama_cpp._ggml import libggml

    packed = np.empty_like(stored(values, type_name))
    libggml.ggml_quantize_chunk(
        int(gguf.GGMLQuantizationType[type_name.upper()]), values.ctypes.data, packed.ctypes.data,
        0, *values.shape, importance.ctypes.data,
    )  # fmt: skip
    return packed


@pytest.mark.parametrize("type_name", ["q6_k", "q5_k", "q4_k", "q8_0", "q5_0", "q4_0", "iq4_xs"])
def test_a_tensor_five_percent_too_large_is_no_rounding_however_coarse_its_type(
    type_name: str, tmp_path: Path
) -> None:
    found = looked_at(tmp_path, type_name, lambda rows: rows * np.float32(1.05))
    assert found.fault == "scaled by 1.05"


def test_a_scaled_tensor_of_three_bits_is_found_though_not_named(tmp_path: Path) -> None:
    """Searching for scales again leaves other values."""
    assert looked_at(tmp_path, "q3_k", lambda rows: rows * np.float32(1.05)).fault is not None


@pytest.mark.parametrize("type_name", [*K_QUANTS, "q8_0", "q4_0", "iq4_xs"])
def test_one_row_four_times_too_large_is_named(type_name: str, tmp_path: Path) -> None:
    def change(rows: Rows) -> Rows:
        rows[7] *= 4
        return rows

    fault = looked_at(tmp_path, type_name, change).fault
    assert re.fullmatch(r"scaled by (4|3\.98\d) in 1 of 48 rows: 7", fault or "")


@pytest.mark.parametrize("type_name", [*K_QUANTS, "q8_0", "q4_0", "iq4_xs"])
def test_two_rows_exchanged_are_named(type_name: str, tmp_path: Path) -> None:
    def change(rows: Rows) -> Rows:
        rows[[3, 40]] = rows[[40, 3]]
        return rows

    assert looked_at(tmp_path, type_name, change).fault == "rows 3 and 40 exchanged"


@pytest.mark.parametrize(
    ("once", "then"), [("q4_k", "q8_0"), ("q2_k", "q6_k"), ("q3_k", "f16"), ("q4_0", "q5_k")]
)
def test_a_tensor_that_went_through_a_coarser_type_is_said_to_be_quantized_twice(
    once: str, then: str, tmp_path: Path
) -> None:
    values = weights()
    packed = stored(rounded(values, once), then)
    file, tensors = written(tmp_path, values, then, packed)
    found = fidelity(file, NAME, tensors).fault
    assert found == f"has lost as much as {once} loses: quantized twice"


def test_a_type_is_never_said_to_have_gone_through_a_finer_one(tmp_path: Path) -> None:
    """Every q4_k tensor has at most sixteen different values in a block."""
    found = looked_at(tmp_path, "q4_k", lambda rows: rows + np.float32(0.01))
    assert found.fault is not None
    assert "quantized twice" not in found.fault


def test_types_with_one_way_to_round_leave_the_least_room() -> None:
    assert slack("f16").tensor < slack("q4_k").tensor
    assert slack("f16").gains(2e-4)[1] < 0.01 < slack("q4_k").gains(0.08)[1]
