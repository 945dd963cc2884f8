"""The images beside the cases: which they are, where they stand, and what they look like."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageOps

from harness.arms.base import Prepared
from harness.preprocess import pixels_sha256
from harness.running.canary_sessions import canaries

SIZE = 16


@pytest.fixture
def first(tmp_path: Path) -> list[Prepared]:
    """Session 0: three images, no two alike and none symmetric."""
    images = []
    for position, name in enumerate(("a", "b", "c")):
        image = Image.linear_gradient("L").resize((SIZE, SIZE)).rotate(90 * (position + 1))
        rgb = Image.merge("RGB", (image, image, Image.new("L", image.size, 40 * position)))
        path = tmp_path / f"{name}.png"
        rgb.save(path)
        images.append(Prepared(name, 0, position, path, pixels_sha256(rgb)))
    return images


def test_two_sessions_follow_the_last_one(first: list[Prepared], tmp_path: Path) -> None:
    made = canaries(first, 7, SIZE, tmp_path)
    assert [(one.canary, one.session, one.position) for one in made] == [
        ("black", 7, 0),
        ("mirror", 7, 1),
        ("twice", 7, 2),
        ("twice", 7, 3),
        ("reversed", 8, 0),
        ("reversed", 8, 1),
        ("again", 8, 2),
    ]


def test_the_first_session_is_run_again_from_its_end(first: list[Prepared], tmp_path: Path) -> None:
    made = canaries(first, 1, SIZE, tmp_path)
    assert [one.case_id for one in made[4:]] == ["c", "b", "a"]
    assert [one.pixels_sha256 for one in made[4:]] == [one.pixels_sha256 for one in reversed(first)]


def test_black_is_black_and_the_mirror_mirrors_the_first_image(
    first: list[Prepared], tmp_path: Path
) -> None:
    black, mirror, *_ = canaries(first, 1, SIZE, tmp_path)
    with Image.open(black.pixels_path) as image:
        assert image.size == (SIZE, SIZE)
        assert image.getextrema() == ((0, 0),) * 3
    with Image.open(mirror.pixels_path) as image, Image.open(first[0].pixels_path) as one:
        assert ImageOps.mirror(image).tobytes() == one.tobytes()
        assert mirror.pixels_sha256 == pixels_sha256(image)


def test_a_session_of_one_image_still_has_it_again(first: list[Prepared], tmp_path: Path) -> None:
    assert [one.canary for one in canaries(first[:1], 1, SIZE, tmp_path)][-1] == "again"
