"""Near-duplicates: the same picture saved anew is one, another picture is not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fixtures import textures
from harness.dataset.duplicates import fingerprint, groups, near_pairs
from harness.preprocess import prepare


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [item.image.convert("RGB") for item in textures.textures(60, seed=11)]


def _saved_anew(image: Image.Image) -> Image.Image:
    smaller = image.resize((image.width * 9 // 10, image.height * 9 // 10))
    content = io.BytesIO()
    smaller.save(content, format="JPEG", quality=85)
    return Image.open(content)


def test_different_textures_are_no_near_duplicates(pictures: list[Image.Image]) -> None:
    assert near_pairs([fingerprint(prepare(one)) for one in pictures]).size == 0


def test_a_picture_saved_smaller_and_lossy_is_found(pictures: list[Image.Image]) -> None:
    prints = [fingerprint(prepare(one)) for one in pictures]
    anew = [fingerprint(prepare(_saved_anew(one))) for one in pictures]
    pairs = {tuple(pair) for pair in near_pairs(prints + anew).tolist()}
    found = sum((index, index + len(pictures)) in pairs for index in range(len(pictures)))
    assert found >= 0.9 * len(pictures)
    assert pairs <= {(index, index + len(pictures)) for index in range(len(pictures))}


def test_plain_colours_are_told_apart_by_colour() -> None:
    red, blue, reddish = (
        fingerprint(Image.new("RGB", (256, 256), colour))
        for colour in ((200, 0, 0), (0, 0, 200), (205, 3, 0))
    )
    assert near_pairs([red, blue, reddish]).tolist() == [[0, 2]]


def test_padding_does_not_make_wide_pictures_alike(pictures: list[Image.Image]) -> None:
    wide = [prepare(one.resize((640, 80))) for one in pictures]
    assert near_pairs([fingerprint(one) for one in wide]).size == 0


def test_pairs_connect_into_groups() -> None:
    pairs = np.array([[0, 2], [2, 4], [1, 3]])
    members = groups(6, pairs).tolist()
    assert members[0] == members[2] == members[4]
    assert members[1] == members[3]
    assert len(set(members)) == 3
    assert near_pairs([]).shape == (0, 2)
