"""A batch as the trainer makes it, beside what libmtmd hands to the vision graph and the model."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import llama_cpp, mtmd_cpp
from numpy.typing import NDArray

from fixtures import textures
from harness import checkpoint as checkpoints
from harness import contract as contracts
from harness.arms.base import Prepared
from harness.arms.desktop import DesktopArm
from harness.bundle import Bundle
from harness.contract import Contract, Tiling
from harness.dataset import Entry
from harness.dataset.assemble import Settings
from harness.dataset.prepare import prepare
from harness.training.dataset import collate
from harness.training.examples import Examples

DEFAULT = contracts.load("default")
SOURCES = {"square": (300, 300), "wide": (640, 200), "tall": (131, 700), "exact": (256, 256)}


class _Tensor(ctypes.Structure):
    """`struct ggml_tensor`, ggml/include/ggml.h at the pinned commit."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.float32]]:
    """The vision graph's input, one entry a tile, shape (3, side, side), in the order encoded."""
    tiles: list[NDArray[np.float32]] = []

    @llama_cpp.ggml_backend_sched_eval_callback  # type: ignore[misc]
    def keep(node: int, ask: bool, _data: object) -> bool:
        sources = [
            _Tensor.from_address(source) for source in _Tensor.from_address(node).src if source
        ]
        for tensor in sources if ask else ():
            if tensor.name == b"inp_raw":
                values = (ctypes.c_float * np.prod(tensor.ne)).from_address(tensor.data)
                tiles.append(np.array(values, np.float32).reshape(tensor.ne[2::-1]))
        return False

    defaults: Callable[[], Any] = mtmd_cpp.mtmd_context_params_default

    def watched() -> Any:  # noqa: ANN401  (the bindings have no types)
        parameters = defaults()
        parameters.cb_eval = keep
        return parameters

    monkeypatch.setattr(mtmd_cpp, "mtmd_context_params_default", watched)
    return tiles


@pytest.mark.parametrize("size", [256, 512])
@pytest.mark.parametrize("tiling", ["single", "split"])
def test_a_training_batch_holds_the_ids_and_pixels_that_libmtmd_makes(
    size: int, tiling: Tiling, tiny_bundle: Bundle, seen: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    pixels = DEFAULT.pixels.model_copy(update={"size": size})
    contract = DEFAULT.model_copy(update={"tiling": tiling, "pixels": pixels})
    entries = _dataset(tmp_path, contract)
    processor = checkpoints.load_processor(checkpoints.load(tiny_bundle.checkpoint))
    (examples,) = Examples(processor, contract, entries).batches([range(len(entries))])
    batch = collate(examples, processor.tokenizer.pad_token_id)

    arm = DesktopArm(tiny_bundle, "f16", contract.runtime.reference(), contract, "desktop:f16")
    arm.attest()
    for row, entry in enumerate(entries):
        seen.clear()
        (observed,) = arm.observe([Prepared("case", 0, 0, entry.path, entry.pixels_sha256)])
        assert observed.error is None
        ids = batch.input_ids[row, : len(observed.prompt_ids)].tolist()
        image_id = processor.image_token_id
        assert [-1 if token == image_id else token for token in ids] == observed.prompt_ids
        assert batch.targets.shape[1] == batch.input_ids.shape[1] - len(ids)
        assert len(seen) == len(batch.pixel_values[row]) == (1 if tiling == "single" else 5)
        difference = np.abs(np.stack(seen) - batch.pixel_values[row].numpy()).max()
        assert difference <= 1e-5
    arm.close()


def _dataset(folder: Path, contract: Contract) -> tuple[Entry, ...]:
    """A texture in every shape, prepared as `driftloop dataset prepare` does."""
    (folder / "fire").mkdir()
    for seed, (name, size) in enumerate(SOURCES.items()):
        textures.texture("fire", seed).image.resize(size).save(folder / "fire" / f"{name}.png")
    settings = Settings(labels=contract.answer.labels, held_out=0)
    return prepare(
        str(folder), folder.parent / f"{folder.name}-set", contract.pixels, settings
    ).dataset.entries
