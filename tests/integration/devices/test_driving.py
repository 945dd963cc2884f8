"""A phone driven along a trajectory: each of its outputs measured given the reference's input."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import gguf
import numpy
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from devices.deploy import LocalBlob
from devices.errors import RunnerFailed
from devices.hashing import file_sha256
from devices.phone import Phone
from devices.runner.attempt import end_all
from devices.runner.client import run
from devices.runner.protocol import DrivenLayer, ImageResult
from devices.runner.whole_tensors import look
from devices.runner.work import Work, WorkImage
from harness.bundle import Bundle
from tests.runner_work import (
    ONE_THREAD,
    answers,
    image_results,
    many,
    places,
    token_ids,
    work,
)

Tensors = dict[str, NDArray[numpy.float32]]


def recorded(
    phone: Phone, tiny: Bundle, images: Sequence[WorkImage], **changes: object
) -> list[tuple[ImageResult, Tensors]]:
    return list(look(phone, work(tiny, phone, images, **changes)))


def blob(path: Path, tensors: Tensors, prompt_ids: Sequence[int]) -> LocalBlob:
    """A trajectory as its readers expect it, written by the format's own library."""
    save_file(tensors, path, {"prompt_ids": json.dumps([*prompt_ids]), "grid": "[0, 0]"})
    return LocalBlob(path, file_sha256(path))


@pytest.fixture
def along(tmp_path: Path) -> Callable[[WorkImage, ImageResult, Tensors], WorkImage]:
    """The image with a trajectory."""

    def attach(image: WorkImage, result: ImageResult, tensors: Tensors) -> WorkImage:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        return replace(image, trajectory=blob(path, tensors, result.prompt_ids))

    return attach


Along = Callable[[WorkImage, ImageResult, Tensors], WorkImage]


def driven(phone: Phone, todo: Work) -> list[ImageResult]:
    results = image_results(run(phone, todo))
    assert [one.error for one in results] == [None] * len(results)
    return results


def off(result: ImageResult) -> dict[str, DrivenLayer]:
    """The outputs that are not exactly the reference's."""
    return {one.name: one for one in result.driven if any((one.error, one.gain, one.shift))}


def measured(name: str, own: NDArray[numpy.float32], wanted: NDArray[numpy.float32]) -> DrivenLayer:
    """What the protocol says, in numpy."""
    width = wanted.shape[-1]
    c, r = (one.reshape(-1, width).astype(numpy.float64) for one in (own, wanted))
    squares = (r**2).sum(1)
    weights = numpy.maximum(squares, 0.01 * squares.mean())
    return DrivenLayer(
        name=name,
        error=math.sqrt((((c - r) ** 2).sum(1) / weights).mean()),
        gain=((c * r).sum(1) / weights).mean() - (squares / weights).mean(),
        shift=(c - r).mean() / math.sqrt((r**2).mean()),
    )


@pytest.mark.parametrize(
    "changes", [{}, {"tiling": "split"}, {"batch": 3}, {"tiling": "split", "batch": 7}], ids=str
)
def test_along_its_own_trajectory_every_output_is_exactly_the_references(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], along: Along, changes: dict[str, object]
) -> None:
    own = recorded(device, tiny, pictures[:2], **changes)
    images = [along(image, *one) for image, one in zip(pictures, own, strict=False)]
    for result, (plain, tensors) in zip(
        driven(device, work(tiny, device, images, **changes)), own, strict=True
    ):
        assert [one.name for one in result.driven] == list(tensors)
        assert off(result) == {}
        assert result.evidence == plain.evidence
        assert (result.tokens, result.prompt_ids) == (plain.tokens, plain.prompt_ids)


def test_another_cache_shows_in_attention_alone_and_as_the_protocol_measures_it(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], along: Along
) -> None:
    cache = {"cache_type_k": "f16", "cache_type_v": "f16"}
    ((reference, wanted),) = recorded(device, tiny, pictures[:1], **cache)
    image = along(pictures[0], reference, wanted)
    # deep as well, so that its own outputs are here to be measured again
    ((result, own),) = recorded(device, tiny, [image])
    assert set(off(result)) == {"text layer 0 attention", "text layer 1 attention"}
    for one in result.driven:
        again = measured(one.name, own[one.name], wanted[one.name])
        assert one.error == pytest.approx(again.error, rel=1e-9)
        assert one.gain == pytest.approx(again.gain, rel=1e-6, abs=1e-12)
        assert one.shift == pytest.approx(again.shift, rel=1e-6, abs=1e-12)


def test_other_pictures_are_led_back_to_the_references(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], along: Along
) -> None:
    first, second = recorded(device, tiny, pictures[:2])
    (result,) = driven(device, work(tiny, device, [along(pictures[1], *first)]))
    assert set(off(result)) == {"pixels"}
    assert result.evidence.pixels == second[0].evidence.pixels, "its own"
    assert result.evidence.embed == first[0].evidence.embed
    assert result.tokens == first[0].tokens


@pytest.fixture
def damaged(tiny: Bundle, tmp_path: Path) -> Callable[[Work, str, str, float], Work]:
    """The work with one tensor of its text model or mmproj multiplied."""

    def damage(todo: Work, half: str, tensor: str, factor: float) -> Work:
        copy = tmp_path / f"{half}.gguf"
        shutil.copy(getattr(todo, half), copy)
        (found,) = (one for one in gguf.GGUFReader(copy, "r+").tensors if one.name == tensor)
        if found.tensor_type == gguf.GGMLQuantizationType.Q8_0:
            scales = found.data.reshape(-1, 34)[:, :2].view(numpy.float16)
            scales[:] = scales * numpy.float16(factor)
        else:
            found.data[:] = found.data * found.data.dtype.type(factor)
        found.data.flush()
        return replace(todo, **{half: copy, f"{half}_sha256": file_sha256(copy)})

    return damage


@pytest.mark.parametrize(
    ("half", "tensor", "layer"),
    [
        ("mmproj", "v.patch_embd.weight", "vision patches"),
        ("mmproj", "v.blk.0.attn_out.weight", "vision layer 0 attention"),
        ("mmproj", "v.blk.1.ffn_down.weight", "vision layer 1 ffn"),
        ("mmproj", "v.post_ln.weight", "vision norm"),
        ("mmproj", "mm.model.fc.weight", "embed"),
        ("text_model", "blk.0.attn_output.weight", "text layer 0 attention"),
        ("text_model", "blk.0.ffn_down.weight", "text layer 0 ffn"),
        ("text_model", "blk.1.attn_v.weight", "text layer 1 attention"),
        ("text_model", "blk.1.ffn_down.weight", "text layer 1 ffn"),
        ("text_model", "output_norm.weight", "text norm"),
    ],
)
def test_a_scaled_weight_shows_in_its_layer_and_nowhere_else(
    device: Phone,
    tiny: Bundle,
    pictures: list[WorkImage],
    along: Along,
    damaged: Callable[[Work, str, str, float], Work],
    half: str,
    tensor: str,
    layer: str,
) -> None:
    # a small batch, so that most outputs come in pieces
    settings = {"cache_type_k": "f16", "cache_type_v": "f16", "batch": 5}
    (own,) = recorded(device, tiny, pictures[:1], **settings)
    todo = work(tiny, device, [along(pictures[0], *own)], **settings)
    (result,) = driven(device, damaged(todo, half, tensor, 1.05))
    found = off(result)
    assert set(found) == {layer}
    # a bias that is not scaled takes some of it away
    assert found[layer].error == pytest.approx(0.05, rel=0.4)
    assert found[layer].gain == pytest.approx(0.05, rel=0.4)


def test_a_scaled_output_of_the_reference_is_the_last_that_shows(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], along: Along
) -> None:
    ((result, tensors),) = recorded(device, tiny, pictures[:1])
    scaled = {**tensors, "prefill": tensors["prefill"] * numpy.float32(1.05)}
    (seen,) = driven(device, work(tiny, device, [along(pictures[0], result, scaled)]))
    assert set(off(seen)) == {"prefill"}
    assert off(seen)["prefill"].error == pytest.approx(0.05 / 1.05, rel=1e-4)
    assert off(seen)["prefill"].gain == pytest.approx(-0.05 / 1.05, rel=1e-4)


@pytest.mark.parametrize(("reference", "candidate"), [("single", "split"), ("split", "single")])
def test_the_references_tiles_and_prompt_are_run_whatever_the_candidates_own(
    device: Phone,
    tiny: Bundle,
    pictures: list[WorkImage],
    along: Along,
    reference: str,
    candidate: str,
) -> None:
    ((wanted, tensors),) = recorded(device, tiny, pictures[:1], tiling=reference)
    ((own, _),) = recorded(device, tiny, pictures[:1], tiling=candidate)
    image = along(pictures[0], wanted, tensors)
    (result,) = driven(device, work(tiny, device, [image], tiling=candidate))
    assert set(off(result)) == {"pixels"}
    assert off(result)["pixels"] == DrivenLayer(name="pixels", error=math.inf, gain=0, shift=0)
    assert [one.name for one in result.driven] == list(tensors)
    assert token_ids(result) == token_ids(wanted)
    for field in ("grid", "image_tokens", "prompt_ids"):
        assert getattr(result, field) == getattr(own, field), "its own"
    assert result.evidence.pixels == own.evidence.pixels, "its own"
    assert result.timings_ms is not None
    assert len(result.timings_ms.encode) == len(tensors["pixels"])


def test_what_the_trajectory_lacks_or_has_in_another_shape_is_not_replaced(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], along: Along
) -> None:
    (result, tensors), (_, others) = recorded(device, tiny, pictures[:2])
    some: Tensors = {
        "vision layer 0 ffn": others["vision layer 0 ffn"][:, :90],
        "vision layer 1 ffn": others["vision layer 1 ffn"][:60],
        "vision norm": tensors["vision norm"],
        "text layer 0 ffn": others["text layer 0 ffn"][:-1],
        "text norm": numpy.zeros_like(tensors["text norm"]),
    }
    (seen,) = driven(device, work(tiny, device, [along(pictures[0], result, some)]))
    errors = {one.name: one.error for one in seen.driven}
    assert errors == {name: 0.0 if name == "vision norm" else math.inf for name in some}
    assert seen.evidence.embed == result.evidence.embed
    assert seen.evidence.prefill is not None
    assert seen.evidence.prefill.rms == 0, "of the zeros"


def test_an_output_without_finite_values_is_infinitely_far(
    device: Phone,
    tiny: Bundle,
    pictures: list[WorkImage],
    along: Along,
    damaged: Callable[[Work, str, str, float], Work],
) -> None:
    (own,) = recorded(device, tiny, pictures[:1])
    todo = work(tiny, device, [along(pictures[0], *own)])
    (seen,) = driven(device, damaged(todo, "mmproj", "v.post_ln.weight", math.nan))
    assert off(seen) == {
        "vision norm": DrivenLayer(name="vision norm", error=math.inf, gain=0, shift=0)
    }


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_encoded(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], along: Along
) -> None:
    (own,) = recorded(device, tiny, pictures[:1], tiling="split")
    todo = work(tiny, device, [along(pictures[0], *own)], context=40)
    (result,) = image_results(run(device, todo))
    assert result.error is not None
    assert result.error.kind == "context_full"
    assert (result.driven, result.image_tokens) == ([], 4)


def _cut(data: bytes) -> bytes:
    return data[:-100]


def _another_type(data: bytes) -> bytes:
    return data.replace(b'"F32"', b'"I32"')


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": _cut,
    "cut within the header": lambda data: data[:50],
    "cut within the length": lambda data: data[:5],
    "another type": _another_type,
    "no header": lambda data: data[:8] + b"x" * 20 + data[28:],
    "a length beyond all": lambda data: b"\xff" * 8 + data[8:],
    "no metadata": lambda data: data.replace(b'"__metadata__"', b'"__metadatA__"'),
    "no ids": lambda data: data.replace(b"prompt_ids", b"prompt_idz"),
    "a shape beyond all": lambda data: data.replace(b'"shape":[1,96]', b'"shape":[-1,6]'),
    "a shape of another size": lambda data: data.replace(b'"shape":[1,96]', b'"shape":[1,95]'),
    "a shape of nothing": lambda data: data.replace(b'"shape":[1,96]', b'"shape":[0,96]'),
    "an id beyond the vocabulary": lambda data: data.replace(b"-1, -1, -1, -1", b"-1, -1,  999999"),
    "too few image tokens": lambda data: data.replace(b"-1, -1, -1, -1", b"-1, -1, -1,  7"),
}


def test_a_damaged_trajectory_is_a_fault_of_its_image_alone(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], along: Along, tmp_path: Path
) -> None:
    (own,) = recorded(device, tiny, pictures[:1])
    whole = along(pictures[0], *own)
    assert whole.trajectory is not None
    data = whole.trajectory.path.read_bytes()
    images = []
    for place, (name, damage) in enumerate(DAMAGES.items()):
        path = tmp_path / name
        path.write_bytes(damage(data))
        assert path.read_bytes() != data, name
        images.append(replace(whole, position=place, trajectory=LocalBlob(path, file_sha256(path))))
    images.append(replace(whole, position=len(images)))
    *faulty, good = image_results(run(device, work(tiny, device, images)))
    assert (good.error, off(good)) == (None, {})
    for name, result in zip(DAMAGES, faulty, strict=True):
        assert result.error is not None, name
        assert result.error.kind == "trajectory", name
        assert "\n" not in result.error.detail
        assert len(result.error.detail) < 250, name
        assert (result.tokens, result.prompt_ids) == ([], own[0].prompt_ids), name


def test_a_driven_run_that_lost_its_runner_goes_on_where_it_stands(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], along: Along
) -> None:
    own = recorded(device, tiny, pictures[:3])
    images = [along(image, *one) for image, one in zip(pictures, own, strict=False)]
    todo = work(tiny, device, many(images, 60), **ONE_THREAD)
    undisturbed = list(run(device, replace(todo, run_id="undisturbed")))
    begun = run(device, todo)
    for _ in range(20):
        next(begun)
    end_all(device)
    with pytest.raises(RunnerFailed):
        list(begun)
    seen = list(run(device, todo))
    assert sorted(places(seen)) == [(one.session, one.position) for one in todo.images]
    assert answers(seen) == answers(undisturbed)
    assert all(one.driven and off(one) == {} for one in image_results(seen))
