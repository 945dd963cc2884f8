"""Deep mode: every tensor on the way to an answer, brought here image by image."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy
import pytest
from numpy.typing import NDArray

from devices.phone import Phone
from devices.runner.attempt import REMOTE_RUNS, end_all
from devices.runner.client import run
from devices.runner.protocol import ImageResult
from devices.runner.whole_tensors import look
from devices.runner.work import WorkImage
from harness.bundle import Bundle
from tests.runner_work import ONE_THREAD, image_results, work
from tests.tiny_layers import OUTPUTS, TEXT, VISION

Tensors = dict[str, NDArray[numpy.float32]]
Looked = tuple[ImageResult, Tensors]


def looked(
    phone: Phone,
    tiny: Bundle,
    images: Sequence[WorkImage],
    tiling: str = "single",
) -> list[Looked]:
    return list(look(phone, work(tiny, phone, images, tiling=tiling)))


@pytest.mark.parametrize(("tiling", "tiles"), [("single", 1), ("split", 5)])
def test_every_tensor_is_there_in_the_order_of_computation(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], tiling: str, tiles: int
) -> None:
    ((result, tensors),) = looked(device, tiny, pictures[:1], tiling=tiling)
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


def test_a_closer_look_changes_no_answer(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    plain = image_results(run(device, work(tiny, device, pictures[:3])))
    deep = [result for result, _ in looked(device, tiny, pictures[:3])]
    for one, other in zip(plain, deep, strict=True):
        assert one.tokens == other.tokens
        assert one.evidence == other.evidence
        assert other.tokens[0].id == other.tokens[0].top[0].id


def test_the_tensors_of_a_small_batch_are_joined(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    ((_, whole),) = looked(device, tiny, pictures[:1])
    ((result, pieces),) = look(device, work(tiny, device, pictures[:1], batch=3))
    assert {name: tensor.shape for name, tensor in pieces.items()} == {
        name: tensor.shape for name, tensor in whole.items()
    }
    assert len(result.prompt_ids) > 3
    numpy.testing.assert_allclose(pieces["text norm"], whole["text norm"], atol=0.05)


def test_the_phone_never_holds_the_tensors_of_more_than_two_images(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    def held() -> int:
        return len(device.shell(f"ls {REMOTE_RUNS}/test/*/*/tensors").stdout.split())

    todo = work(tiny, device, pictures[:6], **ONE_THREAD)
    for _, most in zip(look(device, todo), (2, 2, 2, 2, 1, 0), strict=True):
        deadline = time.monotonic() + 30
        while held() < most and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # longer than an image takes: the runner waits
        assert held() == most


def test_a_look_that_is_given_up_leaves_nothing_on_the_phone(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    begun = look(device, work(tiny, device, pictures[:6]))
    next(begun)
    begun.close()
    assert not device.exists(f"{REMOTE_RUNS}/test")
    assert end_all(device) == 0


def test_a_look_leaves_nothing_of_its_run_on_the_phone_and_can_be_repeated(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    first = looked(device, tiny, pictures[:1])
    assert not device.exists(f"{REMOTE_RUNS}/test")
    again = looked(device, tiny, pictures[:1])
    assert all(numpy.array_equal(again[0][1][name], first[0][1][name]) for name in first[0][1])
