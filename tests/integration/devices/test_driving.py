"""A phone driven along a trajectory: each of its outputs measured given the reference's input."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from driftloop.devices.deploy import LocalBlob
from driftloop.devices.hashing import file_sha256
from driftloop.devices.runner.attempt import end_all
from driftloop.devices.runner.client import run
from driftloop.devices.runner.protocol import DrivenLayer, ImageResult
from driftloop.devices.runner.work import Work, WorkImage
from tests.runner_work import Tensors, TinyRunner, answers, slots, token_ids

F16_CACHE = {"cache_type_k": "f16", "cache_type_v": "f16"}


@dataclass(frozen=True)
class Driver:
    """Drives pictures of the tiny runner along trajectories, which lie in a folder of the test."""

    tiny: TinyRunner
    folder: Path

    def along(self, image: WorkImage, result: ImageResult, tensors: Tensors) -> WorkImage:
        """The image with a trajectory as its readers expect it, by the format's own library."""
        path = self.folder / f"{len(list(self.folder.iterdir()))}.safetensors"
        ids = json.dumps([*result.prompt_ids])
        save_file(tensors, path, {"prompt_ids": ids, "grid": "[0, 0]"})
        return replace(image, trajectory=LocalBlob(path, file_sha256(path)))

    def work(
        self, result: ImageResult, tensors: Tensors, picture: int = 0, **changes: object
    ) -> Work:
        """One picture, to be driven along what was recorded."""
        image = self.along(self.tiny.pictures[picture], result, tensors)
        return self.tiny.work([image], **changes)

    def drive(
        self, result: ImageResult, tensors: Tensors, picture: int = 0, **changes: object
    ) -> ImageResult:
        """How it went."""
        return self.answer(self.work(result, tensors, picture, **changes))

    def answer(self, todo: Work) -> ImageResult:
        (seen,) = self.tiny.answer(todo)
        assert seen.error is None
        return seen

    def damaged(self, todo: Work, half: str, tensor: str, factor: float) -> Work:
        """The work with one tensor of its text model or mmproj multiplied."""
        copy = self.folder / f"{half}.gguf"
        shutil.copy(getattr(todo, half), copy)
        (found,) = (one for one in gguf.GGUFReader(copy, "r+").tensors if one.name == tensor)
        if found.tensor_type == gguf.GGMLQuantizationType.Q8_0:
            scales = found.data.reshape(-1, 34)[:, :2].view(numpy.float16)
            scales[:] = scales * numpy.float16(factor)
        else:
            found.data[:] = found.data * found.data.dtype.type(factor)
        found.data.flush()
        return replace(todo, **{half: copy, f"{half}_sha256": file_sha256(copy)})


@pytest.fixture
def driver(tiny: TinyRunner, tmp_path: Path) -> Driver:
    return Driver(tiny, tmp_path)


def off(result: ImageResult) -> dict[str, DrivenLayer]:
    """The outputs that are not exactly the reference's."""
    return {one.name: one for one in result.driven if any((one.error, one.gain, one.shift))}


def infinitely_far(name: str) -> DrivenLayer:
    return DrivenLayer(name=name, error=math.inf, gain=0, shift=0)


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
    driver: Driver, changes: dict[str, object]
) -> None:
    tiny = driver.tiny
    own = tiny.deep(2, **changes)
    images = [driver.along(image, *one) for image, one in zip(tiny.pictures, own, strict=False)]
    results = tiny.answer(tiny.work(images, **changes))
    for result, (plain, tensors) in zip(results, own, strict=True):
        assert result.error is None
        assert [one.name for one in result.driven] == list(tensors)
        assert off(result) == {}
        assert result.evidence == plain.evidence
        assert (result.tokens, result.prompt_ids) == (plain.tokens, plain.prompt_ids)


def test_another_cache_shows_in_attention_alone_and_as_the_protocol_measures_it(
    driver: Driver,
) -> None:
    ((reference, wanted),) = driver.tiny.deep(**F16_CACHE)
    image = driver.along(driver.tiny.pictures[0], reference, wanted)
    # deep as well, so that its own outputs are here to be measured again
    ((result, own),) = driver.tiny.deep([image])
    assert set(off(result)) == {"text layer 0 attention", "text layer 1 attention"}
    for one in result.driven:
        again = measured(one.name, own[one.name], wanted[one.name])
        assert one.error == pytest.approx(again.error, rel=1e-9)
        assert one.gain == pytest.approx(again.gain, rel=1e-6, abs=1e-12)
        assert one.shift == pytest.approx(again.shift, rel=1e-6, abs=1e-12)


def test_other_pictures_are_led_back_to_the_references(driver: Driver) -> None:
    first, second = driver.tiny.deep(2)
    result = driver.drive(*first, picture=1)
    assert set(off(result)) == {"pixels"}
    assert result.evidence.pixels == second[0].evidence.pixels, "its own"
    assert result.evidence.embed == first[0].evidence.embed
    assert result.tokens == first[0].tokens


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
    driver: Driver, half: str, tensor: str, layer: str
) -> None:
    # a small batch, so that most outputs come in pieces
    (own,) = driver.tiny.deep(**F16_CACHE, batch=5)
    todo = driver.work(*own, **F16_CACHE, batch=5)
    found = off(driver.answer(driver.damaged(todo, half, tensor, 1.05)))
    assert set(found) == {layer}
    # a bias that is not scaled takes some of it away
    assert found[layer].error == pytest.approx(0.05, rel=0.4)
    assert found[layer].gain == pytest.approx(0.05, rel=0.4)


def test_a_scaled_output_of_the_reference_is_the_last_that_shows(driver: Driver) -> None:
    ((result, tensors),) = driver.tiny.deep()
    scaled = {**tensors, "prefill": tensors["prefill"] * numpy.float32(1.05)}
    seen = off(driver.drive(result, scaled))
    assert set(seen) == {"prefill"}
    assert seen["prefill"].error == pytest.approx(0.05 / 1.05, rel=1e-4)
    assert seen["prefill"].gain == pytest.approx(-0.05 / 1.05, rel=1e-4)


@pytest.mark.parametrize(("reference", "candidate"), [("single", "split"), ("split", "single")])
def test_the_references_tiles_and_prompt_are_run_whatever_the_candidates_own(
    driver: Driver, reference: str, candidate: str
) -> None:
    ((wanted, tensors),) = driver.tiny.deep(tiling=reference)
    ((own, _),) = driver.tiny.deep(tiling=candidate)
    result = driver.drive(wanted, tensors, tiling=candidate)
    assert off(result) == {"pixels": infinitely_far("pixels")}
    assert [one.name for one in result.driven] == list(tensors)
    assert token_ids(result) == token_ids(wanted)
    for field in ("grid", "image_tokens", "prompt_ids"):
        assert getattr(result, field) == getattr(own, field), "its own"
    assert result.evidence.pixels == own.evidence.pixels, "its own"
    assert result.timings_ms is not None
    assert len(result.timings_ms.encode) == len(tensors["pixels"])


def test_what_the_trajectory_lacks_or_has_in_another_shape_is_not_replaced(driver: Driver) -> None:
    (result, tensors), (_, others) = driver.tiny.deep(2)
    some: Tensors = {
        "vision layer 0 ffn": others["vision layer 0 ffn"][:, :90],
        "vision layer 1 ffn": others["vision layer 1 ffn"][:60],
        "vision norm": tensors["vision norm"],
        "text layer 0 ffn": others["text layer 0 ffn"][:-1],
        "text norm": numpy.zeros_like(tensors["text norm"]),
    }
    seen = driver.drive(result, some)
    errors = {one.name: one.error for one in seen.driven}
    assert errors == {name: 0.0 if name == "vision norm" else math.inf for name in some}
    assert seen.evidence.embed == result.evidence.embed
    assert seen.evidence.prefill is not None
    assert seen.evidence.prefill.rms == 0, "of the zeros"


def test_an_output_without_finite_values_is_infinitely_far(driver: Driver) -> None:
    (own,) = driver.tiny.deep()
    todo = driver.damaged(driver.work(*own), "mmproj", "v.post_ln.weight", math.nan)
    assert off(driver.answer(todo)) == {"vision norm": infinitely_far("vision norm")}


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_encoded(driver: Driver) -> None:
    (own,) = driver.tiny.deep(tiling="split")
    (result,) = driver.tiny.answer(driver.work(*own, context=40))
    assert result.error is not None
    assert result.error.kind == "context_full"
    assert (result.driven, result.image_tokens) == ([], 4)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[:-100],
    "cut within the header": lambda data: data[:50],
    "cut within the length": lambda data: data[:5],
    "another type": lambda data: data.replace(b'"F32"', b'"I32"'),
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


def test_a_damaged_trajectory_is_a_fault_of_its_image_alone(driver: Driver) -> None:
    tiny = driver.tiny
    (own,) = tiny.deep()
    whole = driver.along(tiny.pictures[0], *own)
    assert whole.trajectory is not None
    data = whole.trajectory.path.read_bytes()
    images = []
    for position, (name, damage) in enumerate(DAMAGES.items()):
        path = driver.folder / name
        path.write_bytes(damage(data))
        assert path.read_bytes() != data, name
        trajectory = LocalBlob(path, file_sha256(path))
        images.append(replace(whole, position=position, trajectory=trajectory))
    images.append(replace(whole, position=len(images)))
    *faulty, good = tiny.answer(tiny.work(images))
    assert (good.error, off(good)) == (None, {})
    for name, result in zip(DAMAGES, faulty, strict=True):
        assert result.error is not None, name
        assert result.error.kind == "trajectory", name
        assert "\n" not in result.error.detail
        assert len(result.error.detail) < 250, name
        assert (result.tokens, result.prompt_ids) == ([], own[0].prompt_ids), name


def test_a_driven_run_that_lost_its_runner_goes_on_where_it_stands(driver: Driver) -> None:
    own = driver.tiny.deep(3)
    images = [
        driver.along(one, *seen) for one, seen in zip(driver.tiny.pictures, own, strict=False)
    ]
    tiny = replace(driver.tiny, pictures=images)
    todo = tiny.long_work(60)
    undisturbed = tiny.answer(replace(todo, run_id="undisturbed"))
    begun = run(tiny.phone, todo)
    lines = [next(begun) for _ in range(20)]
    end_all(tiny.phone)
    seen = [line for line in (*lines, *begun) if isinstance(line, ImageResult)]
    assert sorted(slots(seen)) == [(one.session, one.position) for one in todo.images]
    assert answers(seen) == answers(undisturbed)
    assert all(one.driven and off(one) == {} for one in seen)
