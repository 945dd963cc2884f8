"""What the app's guide calls about 21 tokens, counted on the tiny bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from driftloop.fixtures import textures
from driftloop.harness.bundle import Bundle
from driftloop.harness.contract import load
from driftloop.harness.progress import Unseen
from driftloop.harness.tokens import measure

DEFAULT = load("default")
CONTRACT = DEFAULT.model_copy(
    # Tokens do not depend on threads, and threads that wait for each other spin.
    update={"runtime": DEFAULT.runtime.model_copy(update={"threads": 1, "vision_threads": 1})}
)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    next(textures.textures(1, seed=5)).image.save(path)
    return path


def test_every_token_of_both_tilings_is_counted_and_timed(
    tiny_bundle: Bundle, picture: Path
) -> None:
    report = measure(tiny_bundle, CONTRACT, "q8_0", picture, Unseen())
    single, split = report.budgets
    assert (single.tiling, single.grid, single.tokens_per_tile) == ("single", (0, 0), 4)
    assert (split.tiling, split.grid, split.tokens_per_tile) == ("split", (2, 2), 4)
    assert (single.image_tokens, single.framing_tokens, single.prompt_tokens) == (4, 3, 32)
    assert (split.image_tokens, split.framing_tokens, split.prompt_tokens) == (20, 13, 58)
    for budget in report.budgets:
        assert budget.text_tokens == 25
        assert report.answer_tokens(budget) == 32
        assert report.context_used(budget) == budget.prompt_tokens + 32
        assert report.fits(budget)
        assert budget.difference is None
        assert min(budget.encode_ms, budget.prefill_ms) > 0
    assert report.equal
    assert set(report.label_tokens) == set(CONTRACT.answer.labels)
    assert set(report.label_tokens.values()) == {1}


def test_a_processor_that_cuts_otherwise_is_told_by_the_first_id_that_differs(
    tiny_bundle: Bundle, picture: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_bundle.path, tmp_path / "copy"))
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = copy / "checkpoint" / name
        path.write_text(path.read_text().replace('"longest_edge": 256', '"longest_edge": 128'))
    report = measure(replace(tiny_bundle, path=copy), CONTRACT, "q8_0", picture, Unseen())
    difference = report.budgets[1].difference
    assert difference is not None
    assert difference.position == 6, "after the first tile: one a row here, two there"
    assert difference.desktop == "49189 <fake_token_around_image>"
    assert difference.torch == "1116 ĊĊ"
    assert report.equal, "the contract's own tiling is the other one"
