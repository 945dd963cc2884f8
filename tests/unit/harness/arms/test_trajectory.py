"""A trajectory's file and the place where trajectories are kept."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from driftloop.harness.arms import trajectory
from driftloop.harness.arms.base import Look, StageFailed
from driftloop.harness.arms.trajectory import Trajectories, Trajectory

from ..run_factory import observation

PIXELS = "5" * 64


def look(seed: int = 0, width: int = 8) -> Look:
    random = np.random.default_rng(seed)
    shapes = {
        "pixels": (2, 3, 4, 4),
        "vision layer 0 ffn": (10, width),
        "embed": (2, width),
        "prefill": (50,),
    }
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Look(observation(prompt_ids=[1, -1, -1, 2], grid=(1, 2)), tensors)


def test_what_was_seen_is_read_back_in_its_order_by_us_and_by_safetensors(tmp_path: Path) -> None:
    seen = look()
    written = trajectory.write(seen, tmp_path / "a")
    read = Trajectory(written.path, written.sha256)
    assert read.prompt_ids == (1, -1, -1, 2)
    assert list(read.tensors()) == list(seen.tensors)
    with safe_open(written.path, "numpy") as others:
        assert others.metadata() == {"prompt_ids": "[1, -1, -1, 2]", "grid": "[1, 2]"}
        for name, tensor in read.tensors().items():
            assert tensor.dtype == np.float32
            assert np.array_equal(tensor, seen.tensors[name]), name
            assert np.array_equal(others.get_tensor(name), tensor), name


def test_the_hash_is_that_of_the_file_and_the_same_for_the_same_content(tmp_path: Path) -> None:
    one, other = (trajectory.write(look(), tmp_path / name) for name in "ab")
    assert one.sha256 == hashlib.sha256(one.path.read_bytes()).hexdigest()
    assert one.sha256 == other.sha256
    assert trajectory.write(look(seed=1), tmp_path / "c").sha256 != one.sha256


def test_a_view_that_is_not_contiguous_is_written_as_its_copy(tmp_path: Path) -> None:
    turned = np.arange(12, dtype=np.float32).reshape(3, 4).T
    written = trajectory.write(Look(observation(), {"embed": turned}), tmp_path / "a")
    assert np.array_equal(written.tensors()["embed"], turned)


def _header_changed(change: Callable[[dict[str, dict[str, object]]], None]) -> object:
    def damage(content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"\x89PNG",
        lambda content: content[:-1],
        lambda content: b"\xff" * 8 + content[8:],
        _header_changed(lambda header: header.pop("__metadata__")),
        _header_changed(lambda header: header["embed"].update(dtype="F16")),
        _header_changed(lambda header: header["embed"].update(shape=[3, 8])),
        _header_changed(lambda header: header["embed"].update(data_offsets=[-64, 0])),
    ],
    ids=["empty", "image", "cut", "length", "metadata", "type", "shape", "offsets"],
)
def test_a_damaged_or_missing_file_is_one_clear_fault(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    written = trajectory.write(look(), tmp_path / "a")
    written.path.write_bytes(damage(written.path.read_bytes()))
    with pytest.raises(StageFailed) as caught:
        Trajectory(written.path, written.sha256).tensors()
    assert caught.value.kind == "trajectory"
    assert str(written.path) in str(caught.value)
    assert "\n" not in str(caught.value)
    written.path.unlink()
    with pytest.raises(StageFailed, match="no trajectory"):
        Trajectory(written.path, written.sha256).tensors()


# Where they are kept


def test_a_trajectory_is_made_once_an_arm_and_picture(tmp_path: Path) -> None:
    kept = Trajectories("torch", tmp_path)
    assert kept.get(PIXELS) is None
    put = kept.put(PIXELS, look())
    assert Trajectories("torch", tmp_path).get(PIXELS) == put
    assert put.sha256 == hashlib.sha256(put.path.read_bytes()).hexdigest()
    assert Trajectories("other", tmp_path).get(PIXELS) is None
    assert kept.get("6" * 64) is None


def test_those_that_were_used_longest_ago_make_room_whatever_arm_they_are_of(
    tmp_path: Path,
) -> None:
    size = trajectory.write(look(), tmp_path / "measured").path.stat().st_size
    stores = [Trajectories(key, tmp_path / "kept", 3 * size + 100) for key in ("torch", "desktop")]
    names = [str(digit) * 64 for digit in range(4)]
    for age, name in enumerate(names[:3]):
        os.utime(stores[age % 2].put(name, look(age)).path, (age, age))
    assert stores[0].get(names[0]) is not None, "the oldest is used again"
    stores[1].put(names[3], look(3))
    kept = {name for store in stores for name in names if store.get(name) is not None}
    assert kept == {names[0], names[2], names[3]}


def test_one_that_is_larger_than_the_room_is_kept_alone(tmp_path: Path) -> None:
    kept = Trajectories("torch", tmp_path, 1)
    kept.put("6" * 64, look())
    assert kept.put(PIXELS, look(1)).path.exists()
    assert kept.get("6" * 64) is None
