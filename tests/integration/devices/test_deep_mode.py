"""Deep mode: every tensor on the way to an answer, brought here image by image."""

from __future__ import annotations

import time

import numpy
import pytest

from driftloop.devices.runner.attempt import REMOTE_RUNS, end_all
from driftloop.devices.runner.client import run_deep
from tests.runner_work import ONE_THREAD, TinyRunner
from tests.tiny_layers import OUTPUTS, TEXT, VISION


@pytest.mark.parametrize(("tiling", "tiles"), [("single", 1), ("split", 5)])
def test_every_tensor_is_there_in_the_order_of_computation(
    tiny: TinyRunner, tiling: str, tiles: int
) -> None:
    ((result, tensors),) = tiny.deep(tiling=tiling)
    assert list(tensors) == OUTPUTS
    prompt, patches, width = len(result.prompt_ids), tiles * 64, 96
    assert tensors["pixels"].shape == (tiles, 3, 128, 128)
    assert {tensors[name].shape for name in VISION} == {(patches, width)}
    assert tensors["embed"].shape == (result.image_tokens, width)
    assert tensors["text embeddings"].shape == (prompt - tensors["embed"].shape[0], width)
    assert {tensors[name].shape for name in TEXT[1:3]} == {(prompt, width)}
    assert {tensors[name].shape for name in TEXT[3:]} == {(1, width)}
    assert tensors["prefill"].shape == (49280,)
    assert all(numpy.isfinite(tensor).all() for tensor in tensors.values())


def test_the_tensors_of_a_small_batch_are_joined(tiny: TinyRunner) -> None:
    ((_, whole),) = tiny.deep()
    ((result, pieces),) = tiny.deep(batch=3)
    assert {name: tensor.shape for name, tensor in pieces.items()} == {
        name: tensor.shape for name, tensor in whole.items()
    }
    assert len(result.prompt_ids) > 3
    numpy.testing.assert_allclose(pieces["text norm"], whole["text norm"], atol=0.05)


def test_the_phone_never_holds_the_tensors_of_more_than_two_images(tiny: TinyRunner) -> None:
    def held() -> int:
        return len(tiny.phone.shell(f"ls {REMOTE_RUNS}/test/*/*/tensors").stdout.split())

    todo = tiny.work(6, **ONE_THREAD)
    for _, most in zip(run_deep(tiny.phone, todo), (2, 2, 2, 2, 1, 0), strict=True):
        deadline = time.monotonic() + 30
        while held() < most and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # longer than an image takes: the runner waits
        assert held() == most


def test_a_deep_run_leaves_nothing_on_the_phone_and_can_be_given_up_or_repeated(
    tiny: TinyRunner,
) -> None:
    begun = run_deep(tiny.phone, tiny.work(6))
    next(begun)
    begun.close()
    assert not tiny.phone.exists(f"{REMOTE_RUNS}/test")
    assert end_all(tiny.phone) == 0
    ((_, first),) = tiny.deep()
    assert not tiny.phone.exists(f"{REMOTE_RUNS}/test")
    ((_, again),) = tiny.deep()
    assert all(numpy.array_equal(again[name], first[name]) for name in first)
