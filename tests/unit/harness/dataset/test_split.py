"""The split: drawn per label from the seed, near-duplicates together, given sides respected."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from driftloop.fixtures import textures
from driftloop.harness.contract import Pixels
from driftloop.harness.dataset.split import (
    Member,
    draw,
    fingerprint,
    given_by_folders,
    groups,
    near_pairs,
)
from driftloop.harness.preprocess import prepare_as


def _members(count: int, label: str | None = "fire", first_group: int = 0) -> list[Member]:
    return [
        Member(hashlib.sha256(f"{label} {n}".encode()).hexdigest(), label, first_group + n, None)
        for n in range(count)
    ]


def test_each_label_gives_its_share_and_two_images_are_enough_to_hold_one_out() -> None:
    members = [*_members(40), *_members(20, "wood", 100), *_members(10, None, 200)]
    sides = draw(members, 0.2, seed=1)
    shares = [part.count("held_out") for part in (sides[:40], sides[40:60], sides[60:])]
    assert shares == [8, 4, 2]
    assert sorted(draw(_members(2), 0.1, seed=1)) == ["held_out", "train"]
    assert draw(_members(1), 0.1, seed=1) == ["train"]
    assert draw(_members(9), 0, seed=1) == ["train"] * 9


def test_the_seed_decides_not_the_order_and_a_new_image_moves_few_others() -> None:
    members = _members(101)
    before, after = draw(members[:100], 0.2, seed=1), draw(members, 0.2, seed=1)
    assert draw(members[:100], 0.2, seed=2) != before
    assert draw(members[:100][::-1], 0.2, seed=1) == before[::-1]
    assert sum(one != other for one, other in zip(before, after, strict=False)) <= 1


def test_near_duplicates_stay_together() -> None:
    members = [replace(one, group=n // 4) for n, one in enumerate(_members(40))]
    sides = draw(members, 0.2, seed=1)
    assert all(len(set(sides[start : start + 4])) == 1 for start in range(0, 40, 4))
    assert sides.count("held_out") == 8


def test_folders_may_give_both_sides() -> None:
    sources = ["train/fire/1.jpg", "val/fire/2.jpg", "fire/3.jpg"]
    assert given_by_folders(sources) == ["train", "held_out", None]
    assert given_by_folders(["train/fire/1.jpg", "boat/2.jpg"]) == [None, None]


def test_a_given_side_stands_and_its_near_duplicates_follow() -> None:
    members = [
        Member("a", "fire", 1, "train"),
        Member("b", "fire", 1, None),
        Member("c", "fire", 2, "held_out"),
        Member("d", "fire", 1, "held_out"),
    ]
    assert draw(members, 0.2, seed=1) == ["train", "train", "held_out", "held_out"]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [item.image.convert("RGB") for item in textures.textures(60, seed=11)]


def _saved_anew(image: Image.Image) -> Image.Image:
    smaller = image.resize((image.width * 9 // 10, image.height * 9 // 10))
    content = io.BytesIO()
    smaller.save(content, format="JPEG", quality=85)
    return Image.open(content)


def test_only_a_picture_saved_smaller_and_lossy_is_a_near_duplicate(
    pictures: list[Image.Image],
) -> None:
    prints = [fingerprint(prepare_as(one, Pixels())) for one in pictures]
    assert near_pairs(prints).size == 0
    anew = [fingerprint(prepare_as(_saved_anew(one), Pixels())) for one in pictures]
    pairs = {tuple(pair) for pair in near_pairs(prints + anew).tolist()}
    wanted = {(index, index + len(pictures)) for index in range(len(pictures))}
    assert pairs <= wanted
    assert len(pairs) >= 0.9 * len(pictures)
    # Padding does not make wide pictures alike.
    wide = [fingerprint(prepare_as(one.resize((640, 80)), Pixels())) for one in pictures]
    assert near_pairs(wide).size == 0


def test_plain_colours_are_told_apart_by_colour() -> None:
    red, blue, reddish = (
        fingerprint(Image.new("RGB", (256, 256), colour))
        for colour in ((200, 0, 0), (0, 0, 200), (205, 3, 0))
    )
    assert near_pairs([red, blue, reddish]).tolist() == [[0, 2]]


def test_pairs_connect_into_groups() -> None:
    pairs = np.array([[0, 2], [2, 4], [1, 3]])
    members = groups(6, pairs).tolist()
    assert members[0] == members[2] == members[4]
    assert members[1] == members[3]
    assert len(set(members)) == 3
    assert near_pairs([]).shape == (0, 2)
