"""A checkpoint without a training record is judged by what its files do by default."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftloop.harness import checkpoint as checkpoints
from driftloop.harness.audit import checkpoint
from driftloop.harness.audit.checkpoint import Tokens
from driftloop.harness.audit.findings import Finding
from driftloop.harness.contract import Contract

from .reading import wrong

Edit = Callable[[dict[str, Any]], object]


def judged(folder: Path, contract: Contract) -> list[Finding]:
    return list(checkpoint.findings(Tokens(checkpoints.load(folder)), contract))


def edited(source: Path, folder: Path, name: str, edit: Edit) -> Path:
    copy = Path(shutil.copytree(source, folder / "checkpoint"))
    content = json.loads((copy / name).read_text())
    edit(content)
    (copy / name).write_text(json.dumps(content))
    if name == PIXELS:  # the only place of these settings, as in older checkpoints
        (copy / "processor_config.json").unlink()
    return copy


def test_splitting_by_default_is_found_with_its_tokens(
    saved_checkpoint: Path, contract: Contract
) -> None:
    found = wrong(judged(saved_checkpoint, contract), contract)
    assert set(found) == {"tiling"}
    assert "20 image tokens, 4 under the contract" in found["tiling"].note


def test_a_published_smolvlm_takes_1088_image_tokens_against_64(
    saved_checkpoint: Path, tmp_path: Path, contract: Contract
) -> None:
    def sized(config: dict[str, Any]) -> None:
        config["vision_config"] |= {"image_size": 512, "patch_size": 16}

    copy = edited(saved_checkpoint, tmp_path, "config.json", sized)
    for name in ("preprocessor_config.json", "processor_config.json"):
        content = json.loads((copy / name).read_text())
        settings = content.get("image_processor", content)
        settings |= {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}
        (copy / name).write_text(json.dumps(content))
    found = wrong(judged(copy, contract), contract)
    assert "1088 image tokens, 64 under the contract" in found["tiling"].note


GENERATION, PIXELS = "generation_config.json", "preprocessor_config.json"


@pytest.mark.parametrize(
    ("name", "settings", "aspect", "value"),
    [
        (GENERATION, {"do_sample": True, "temperature": 0.7}, "sampling", "temperature 0.7"),
        (GENERATION, {"do_sample": False, "temperature": 1.0, "top_p": 0.9}, None, None),
        (GENERATION, {"max_new_tokens": 128}, "max_tokens", 128),
        (PIXELS, {"resample": 3}, "tile_resize", "bicubic"),
        (PIXELS, {"do_normalize": False}, "normalisation", "none"),
        (PIXELS, {"rescale_factor": 1}, "normalisation", "levels times 1"),
    ],
)
def test_a_default_that_differs_is_named_and_a_temperature_without_sampling_is_none(
    name: str,
    settings: dict[str, Any],
    aspect: str | None,
    value: object,
    saved_checkpoint: Path,
    tmp_path: Path,
    contract: Contract,
) -> None:
    copy = edited(saved_checkpoint, tmp_path, name, lambda content: content.update(settings))
    found = wrong(judged(copy, contract), contract)
    assert "sampling" not in found or aspect == "sampling"
    if aspect is not None:
        assert found[aspect].value == value


def test_labels_that_begin_with_the_same_token_are_named(
    saved_checkpoint: Path, contract: Contract
) -> None:
    alike = contract.answer.model_copy(update={"labels": ("water", "waterfall", "fire")})
    found = wrong(judged(saved_checkpoint, contract.model_copy(update={"answer": alike})), contract)
    assert found["label_tokens"].value == "water and waterfall begin alike"
