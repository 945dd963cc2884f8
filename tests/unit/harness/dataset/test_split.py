"""The split: drawn per label from the seed, near-duplicates together, given sides respected."""

from __future__ import annotations

import hashlib

from harness.dataset.split import Member, draw, given_by_folders


def _members(count: int, label: str | None = "fire", first_group: int = 0) -> list[Member]:
    return [
        Member(hashlib.sha256(f"{label} {n}".encode()).hexdigest(), label, first_group + n, None)
        for n in range(count)
    ]


def test_each_label_gives_its_share() -> None:
    members = [*_members(40), *_members(20, "wood", 100), *_members(10, None, 200)]
    sides = draw(members, 0.2, seed=1)
    assert sides[:40].count("held_out") == 8
    assert sides[40:60].count("held_out") == 4
    assert sides[60:].count("held_out") == 2


def test_the_seed_decides_and_the_order_does_not() -> None:
    members = _members(40)
    sides = draw(members, 0.2, seed=1)
    assert draw(members, 0.2, seed=2) != sides
    assert draw(members[::-1], 0.2, seed=1) == sides[::-1]


def test_a_new_image_moves_few_others() -> None:
    members = _members(101)
    before, after = draw(members[:100], 0.2, seed=1), draw(members, 0.2, seed=1)
    assert sum(one != other for one, other in zip(before, after, strict=False)) <= 1


def test_near_duplicates_stay_together() -> None:
    members = [
        Member(one.pixels_sha256, "fire", n // 4, None) for n, one in enumerate(_members(40))
    ]
    sides = draw(members, 0.2, seed=1)
    assert all(len(set(sides[start : start + 4])) == 1 for start in range(0, 40, 4))
    assert sides.count("held_out") == 8


def test_two_images_of_a_label_are_enough_to_hold_one_out() -> None:
    assert sorted(draw(_members(2), 0.1, seed=1)) == ["held_out", "train"]
    assert draw(_members(1), 0.1, seed=1) == ["train"]
    assert draw(_members(9), 0, seed=1) == ["train"] * 9


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
