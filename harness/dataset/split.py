"""Which images are held out: drawn per label from a seed, near-duplicates kept together."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from harness.dataset.manifest import Split

_FOLDERS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "held_out": "held_out",
    "held-out": "held_out",
    "eval": "held_out",
    "test": "held_out",
    "val": "held_out",
    "validation": "held_out",
}


@dataclass(frozen=True)
class Member:
    """One image, as the split sees it."""

    pixels_sha256: str
    label: str | None
    group: int
    """Its near-duplicates have the same number."""
    given: Split | None
    """The side its source folder names."""


def given_by_folders(sources: Sequence[str]) -> list[Split | None]:
    """The side that each source's folder names, such as `test/fire/1.jpg`.

    None throughout unless both sides occur: a folder `train` alone may hold pictures of trains.
    """
    found = [_named(PurePosixPath(source).parts[:-1]) for source in sources]
    return found if {"train", "held_out"} <= set(found) else [None] * len(found)


def draw(members: Sequence[Member], share: float, seed: int) -> list[Split]:
    """The side of every member, in order.

    Of each label (and of the unlabelled), `share` of the images are held out, but at least one
    group where there are two. Groups are never torn; a side given by a folder stands, and the rest
    of its group follows. The draw knows nothing but pixels, labels and `seed`: neither names nor
    order change it, and a new image moves few others.
    """
    by_group: dict[int, list[Member]] = defaultdict(list)
    for member in members:
        by_group[member.group].append(member)
    free: dict[str | None, list[list[Member]]] = defaultdict(list)
    sides: dict[int, Split] = {}
    for number, group in by_group.items():
        group.sort(key=lambda member: member.pixels_sha256)
        given = next((member.given for member in group if member.given), None)
        if given:
            sides[number] = given
        else:
            label = next((member.label for member in group if member.label), None)
            free[label].append(group)
    for groups in free.values():
        sides |= {group[0].group: "held_out" for group in _chosen(groups, share, seed)}
    return [member.given or sides.get(member.group, "train") for member in members]


def _named(folders: Iterable[str]) -> Split | None:
    return next((_FOLDERS[name] for name in folders if name in _FOLDERS), None)


def _chosen(groups: list[list[Member]], share: float, seed: int) -> list[list[Member]]:
    def place(group: list[Member]) -> bytes:
        return hashlib.sha256(f"{seed} {group[0].pixels_sha256}".encode()).digest()

    wanted = share * sum(len(group) for group in groups)
    chosen: list[list[Member]] = []
    taken = 0
    for group in sorted(groups, key=place):
        if taken + len(group) <= wanted + 0.5:
            chosen.append(group)
            taken += len(group)
    if share and not chosen and len(groups) > 1:
        return [min(groups, key=lambda group: (len(group), place(group)))]
    return chosen
