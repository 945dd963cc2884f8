"""Deep mode: every tensor on the way to an answer, and what is put in place of the runner's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy
import pytest
from numpy.typing import NDArray

from devices.phone import Phone
from devices.runner.attempt import REMOTE_RUNS
from devices.runner.client import run
from devices.runner.looking import look
from devices.runner.protocol import ImageResult
from devices.runner.work import WorkGiven, WorkImage
from harness.bundle import Bundle
from tests.runner_work import image_results, token_ids, work

Tensors = dict[str, NDArray[numpy.float32]]
Looked = tuple[ImageResult, Tensors]

VISION = [
    "vision patches",
    "vision layer 0 attention",
    "vision layer 0 ffn",
    "vision layer 1 attention",
    "vision layer 1 ffn",
    "vision norm",
]
TEXT = [
    "text layer 0 attention",
    "text layer 0 ffn",
    "text layer 1 attention",
    "text layer 1 ffn",
    "text norm",
]


def looked(
    phone: Phone,
    tiny: Bundle,
    images: Sequence[WorkImage],
    given: Iterable[WorkGiven] = (),
    tiling: str = "single",
) -> list[Looked]:
    put_in = [*given] or [WorkGiven()] * len(images)
    changed = [replace(one, given=own) for one, own in zip(images, put_in, strict=True)]
    return list(look(phone, work(tiny, phone, changed, tiling=tiling)))


def raw(tensor: NDArray[numpy.float32]) -> bytes:
    return tensor.astype("<f4").tobytes()


@pytest.mark.parametrize(("tiling", "tiles"), [("single", 1), ("split", 5)])
def test_every_tensor_is_there_in_the_order_of_computation(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], tiling: str, tiles: int
) -> None:
    ((result, tensors),) = looked(device, tiny, pictures[:1], tiling=tiling)
    assert list(tensors) == ["pixels", *VISION, "embed", *TEXT, "prefill"]
    prompt, patches, width = len(result.prompt_ids), tiles * 64, 96
    assert tensors["pixels"].shape == (tiles, 3, 128, 128)
    assert {tensors[name].shape for name in VISION} == {(patches, width)}
    assert tensors["embed"].shape == (result.image_tokens, width)
    assert {tensors[name].shape for name in TEXT[:2]} == {(prompt, width)}
    assert {tensors[name].shape for name in TEXT[2:]} == {(1, width)}
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


def test_embeddings_that_were_looked_at_give_the_same_logits_when_put_in(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    own = looked(device, tiny, pictures[:2])
    # each picture with the other one's embeddings
    given = [WorkGiven(embeddings=raw(tensors["embed"])) for _, tensors in own]
    swapped = looked(device, tiny, pictures[:2], reversed(given))
    for (result, tensors), (expected, wanted) in zip(swapped, reversed(own), strict=True):
        assert result.error is None
        assert token_ids(result) == token_ids(expected)
        assert numpy.array_equal(tensors["prefill"], wanted["prefill"])
        assert list(tensors) == [*TEXT, "prefill"]
        assert (result.evidence.pixels, result.evidence.embed) == (None, None)
        assert result.evidence.prefill == expected.evidence.prefill
        assert result.timings_ms is not None
        assert result.timings_ms.encode == []


@pytest.mark.parametrize("tiling", ["single", "split"])
def test_pixel_values_put_in_go_through_the_vision_graph(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], tiling: str
) -> None:
    own = looked(device, tiny, pictures[:2], tiling=tiling)
    given = [WorkGiven(pixel_values=raw(tensors["pixels"])) for _, tensors in own]
    swapped = looked(device, tiny, pictures[:2], reversed(given), tiling=tiling)
    for (result, tensors), (expected, wanted) in zip(swapped, reversed(own), strict=True):
        assert result.error is None
        assert numpy.array_equal(tensors["embed"], wanted["embed"])
        assert numpy.array_equal(tensors["prefill"], wanted["prefill"])
        assert "pixels" not in tensors
        assert result.evidence.pixels is None
        assert result.evidence.embed == expected.evidence.embed


def test_prompt_ids_put_in_are_what_is_evaluated(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    ((own, tensors),) = looked(device, tiny, pictures[:1])
    ids = tuple(own.prompt_ids)
    shorter = ids[:-2] + ids[-1:]
    same, other = looked(
        device,
        tiny,
        [pictures[0], replace(pictures[0], position=1)],
        [WorkGiven(prompt_ids=ids), WorkGiven(prompt_ids=shorter)],
    )
    assert same[0].prompt_ids == own.prompt_ids
    assert numpy.array_equal(same[1]["prefill"], tensors["prefill"])
    assert tuple(other[0].prompt_ids) == shorter
    assert other[0].error is None
    assert not numpy.array_equal(other[1]["prefill"], tensors["prefill"])
    assert numpy.array_equal(other[1]["embed"], tensors["embed"])


def test_embeddings_and_ids_of_another_tiling_can_be_put_in_together(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    ((split, tensors),) = looked(device, tiny, pictures[:1], tiling="split")
    both = WorkGiven(embeddings=raw(tensors["embed"]), prompt_ids=tuple(split.prompt_ids))
    ((result, put_in),) = looked(device, tiny, pictures[:1], [both], tiling="single")
    assert (result.image_tokens, result.prompt_ids) == (20, split.prompt_ids)
    assert numpy.array_equal(put_in["prefill"], tensors["prefill"])


def test_what_does_not_fit_is_a_fault_of_that_image_alone(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    misfits = {
        "tokenize": WorkGiven(prompt_ids=(1, -1, -1, 2)),
        "decode": WorkGiven(),
        "encode": WorkGiven(pixel_values=bytes(4 * 100)),
    }
    images = [replace(pictures[0], position=place) for place in range(len(misfits))]
    results = [result for result, _ in looked(device, tiny, images, misfits.values())]
    kinds = [result.error.kind if result.error else None for result in results]
    assert kinds == ["tokenize", None, "encode"]
    narrow = WorkGiven(embeddings=bytes(4 * 96))
    ((result, _),) = looked(device, tiny, pictures[:1], [narrow])
    assert result.error is not None
    assert result.error.kind == "tokenize"


def test_a_look_leaves_nothing_of_its_run_on_the_phone_and_can_be_repeated(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    first = looked(device, tiny, pictures[:1])
    assert not device.exists(f"{REMOTE_RUNS}/test")
    again = looked(device, tiny, pictures[:1])
    assert all(numpy.array_equal(again[0][1][name], first[0][1][name]) for name in first[0][1])
