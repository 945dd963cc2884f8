"""Arms on this host driven along trajectories, and twins, on the tiny bundle."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fixtures.drifts.tensors import Change, changed, scaled, zeroed
from harness import bundle as bundles
from harness import contract as contracts
from harness.arms import trajectory
from harness.arms.base import Look, Prepared
from harness.arms.desktop import DesktopArm
from harness.arms.torch import TorchArm
from harness.arms.trajectory import Trajectory
from harness.bundle import Bundle
from harness.comparison.case_comparison import distance
from harness.contract import Contract, Runtime, Tiling
from harness.records.observation import Observation
from tests.tiny_layers import OUTPUTS

CONTRACT = contracts.load("default")
APP = CONTRACT.runtime
REFERENCE = APP.reference()

Arm = TorchArm | DesktopArm
Opened = Callable[[Bundle, Contract], Arm]
Way = Callable[[Arm, Sequence[Prepared]], list[Trajectory]]


def torch(bundle: Bundle, contract: Contract = CONTRACT) -> Arm:
    return TorchArm(bundle.checkpoint, contract)


def desktop(quant: str, runtime: Runtime) -> Opened:
    def opened(bundle: Bundle, contract: Contract) -> Arm:
        return DesktopArm(bundle, quant, runtime, contract, f"desktop:{quant}")

    return opened


ARMS = {
    "torch": torch,
    "f16": desktop("f16", REFERENCE),
    "q8_0+app": desktop("q8_0", APP),
    "a small batch": desktop("q8_0", APP.model_copy(update={"batch": 7})),
}


def under(tiling: Tiling) -> Contract:
    return CONTRACT.model_copy(update={"tiling": tiling})


def answers(observation: Observation) -> dict[str, object]:
    """What an arm computed, without where, when and how fast."""
    fields = {"prompt_ids", "grid", "tokens", "label_logprobs", "evidence", "text", "error"}
    return observation.model_dump(include=fields)


def off(observation: Observation) -> dict[str, float]:
    """The outputs that are not exactly the reference's, by their errors."""
    return {
        one.name: one.error
        for one in observation.driven
        if (one.error, one.gain, one.shift) != (0.0, 0.0, 0.0)
    }


def driven(arm: Arm, images: Sequence[tuple[Prepared, Trajectory]]) -> list[Observation]:
    with closing(arm):
        return list(arm.drive(images))


@pytest.fixture
def way(tmp_path: Path) -> Way:
    """The trajectories of an arm, which is closed."""

    def recorded(arm: Arm, images: Sequence[Prepared]) -> list[Trajectory]:
        with closing(arm):
            looks = list(arm.record(images))
        return [
            trajectory.write(look, tmp_path / f"{arm.name}-{place}")
            for place, look in enumerate(looks)
        ]

    return recorded


@pytest.mark.parametrize("tiling", ["single", "split"])
@pytest.mark.parametrize("name", ARMS)
def test_an_arm_along_its_own_trajectory_is_off_by_exactly_nothing_and_answers_the_same(
    name: str, tiling: Tiling, tiny_bundle: Bundle, pictures: list[Prepared], way: Way
) -> None:
    images = pictures[:2]
    own = way(ARMS[name](tiny_bundle, under(tiling)), images)
    with closing(ARMS[name](tiny_bundle, under(tiling))) as arm:
        observed = list(arm.observe(images))
        seen = list(arm.drive(list(zip(images, own, strict=True))))
    for plain, one in zip(observed, seen, strict=True):
        assert [output.name for output in one.driven] == OUTPUTS
        assert off(one) == {}
        assert answers(one) == answers(plain)
        assert plain.driven == []


def test_every_output_of_a_clean_conversion_is_close_and_none_grows(
    tiny_bundle: Bundle, pictures: list[Prepared], way: Way
) -> None:
    reference = way(torch(tiny_bundle), pictures)
    arm = ARMS["f16"](tiny_bundle, CONTRACT)
    for one in driven(arm, list(zip(pictures, reference, strict=True))):
        assert [output.name for output in one.driven] == OUTPUTS
        for output in one.driven:
            assert output.error < 2e-3, output.name
            assert abs(output.gain) < 1e-3, output.name
            assert abs(output.shift) < 1e-3, output.name


@pytest.fixture
def damaged(tiny_bundle: Bundle, tmp_path: Path) -> Callable[[str, str, Change], Bundle]:
    """A copy of the bundle in which one tensor of one half's q8_0 is changed."""

    def damage(half: str, tensor: str, change: Change) -> Bundle:
        folder = tmp_path / "copy"
        shutil.copytree(tiny_bundle.path, folder)
        copy = bundles.load(folder)
        path = copy.text_model("q8_0") if half == "text" else copy.mmproj("q8_0")
        changed(tensor, change)(path)
        return copy

    return damage


@pytest.mark.parametrize("runtime", [REFERENCE, APP], ids=["reference", "app"])
@pytest.mark.parametrize(
    ("half", "tensor", "layer"),
    [
        ("text", "blk.0.attn_v.weight", "text layer 0 attention"),
        ("text", "blk.1.attn_v.weight", "text layer 1 attention"),
        ("vision", "v.blk.1.attn_v.weight", "vision layer 1 attention"),
    ],
)
def test_five_percent_more_in_one_layer_show_there_alone(
    half: str,
    tensor: str,
    layer: str,
    runtime: Runtime,
    damaged: Callable[[str, str, Change], Bundle],
    tiny_bundle: Bundle,
    pictures: list[Prepared],
    way: Way,
) -> None:
    opened = desktop("q8_0", runtime)
    reference = way(opened(tiny_bundle, CONTRACT), pictures[:2])
    arm = opened(damaged(half, tensor, scaled(1.05)), CONTRACT)
    for one in driven(arm, list(zip(pictures, reference, strict=False))):
        assert list(off(one)) == [layer]
        (seen,) = (output for output in one.driven if output.name == layer)
        assert 0.02 < seen.error < 0.08
        assert 0.01 < seen.gain < 0.08


def test_a_layer_that_gives_nothing_is_off_by_all_of_it(
    damaged: Callable[[str, str, Change], Bundle],
    tiny_bundle: Bundle,
    pictures: list[Prepared],
    way: Way,
) -> None:
    reference = way(ARMS["q8_0+app"](tiny_bundle, CONTRACT), pictures[:1])
    broken = damaged("text", "blk.1.ffn_down.weight", zeroed)
    (one,) = driven(ARMS["q8_0+app"](broken, CONTRACT), [(pictures[0], reference[0])])
    assert off(one) == {"text layer 1 ffn": 1.0}


@pytest.mark.parametrize("name", ["torch", "f16"])
@pytest.mark.parametrize(("its", "candidates"), [("split", "single"), ("single", "split")])
def test_along_another_tilings_way_the_pixels_alone_differ(
    its: Tiling,
    candidates: Tiling,
    name: str,
    tiny_bundle: Bundle,
    pictures: list[Prepared],
    way: Way,
) -> None:
    reference = way(ARMS[name](tiny_bundle, under(its)), pictures[:1])
    with closing(ARMS[name](tiny_bundle, under(its))) as arm:
        (wanted,) = arm.observe(pictures[:1])
    with closing(ARMS[name](tiny_bundle, under(candidates))) as arm:
        (own,) = arm.observe(pictures[:1])
        (one,) = arm.drive([(pictures[0], reference[0])])
    assert off(one) == {"pixels": math.inf}
    assert (one.grid, one.prompt_ids) == (own.grid, own.prompt_ids)
    assert one.evidence.pixels == own.evidence.pixels
    assert one.tokens == wanted.tokens
    assert Observation.model_validate_json(one.model_dump_json()) == one


@pytest.mark.parametrize("name", ["torch", "f16"])
def test_a_trajectory_that_cannot_be_read_is_a_fault_of_its_image_alone(
    name: str, tiny_bundle: Bundle, pictures: list[Prepared], way: Way, tmp_path: Path
) -> None:
    good, _ = own = way(ARMS[name](tiny_bundle, CONTRACT), pictures[:2])
    cut = tmp_path / "cut"
    cut.write_bytes(good.path.read_bytes()[:-4])
    asked = [(pictures[0], Trajectory(cut, good.sha256)), (pictures[1], own[1])]
    broken, whole = driven(ARMS[name](tiny_bundle, CONTRACT), asked)
    assert broken.error is not None
    assert broken.error.kind == "trajectory"
    assert broken.driven == []
    assert broken.label is None
    assert whole.error is None
    assert off(whole) == {}


@pytest.mark.parametrize("name", ["torch", "f16"])
def test_another_models_trajectory_is_a_fault(
    name: str, tiny_bundle: Bundle, pictures: list[Prepared], tmp_path: Path
) -> None:
    with closing(ARMS[name](tiny_bundle, CONTRACT)) as arm:
        (look,) = arm.record(pictures[:1])
        narrow = look.tensors | {"embed": look.tensors["embed"][:, :64]}
        strange = look.observation.model_copy(update={"prompt_ids": [1, -1, 10**6]})
        asked = [
            (pictures[0], trajectory.write(other, tmp_path / str(place)))
            for place, other in enumerate(
                (Look(strange, look.tensors), Look(look.observation, narrow), look)
            )
        ]
        strangers, narrowed, whole = arm.drive(asked)
    assert strangers.error is not None
    assert (strangers.error.kind, "1000000" in strangers.error.detail) == ("trajectory", True)
    assert off(narrowed) == {"embed": math.inf}
    assert narrowed.tokens == whole.tokens
    assert off(whole) == {}


# Twins


@pytest.fixture
def twinned(tiny_bundle: Bundle) -> Iterator[DesktopArm]:
    # Where activations become q8_0, so small a move of four image tokens may end as none.
    arm = DesktopArm(tiny_bundle, "f16", REFERENCE, CONTRACT, "desktop:f16")
    yield arm
    arm.close()


def test_twins_are_the_arm_with_next_to_nothing_changed(
    twinned: DesktopArm, pictures: list[Prepared]
) -> None:
    observed = list(twinned.observe(pictures[:3]))
    for plain, twins in zip(observed, twinned.twin(pictures[:3], 0, 3), strict=True):
        assert answers(twins.own) == answers(plain)
        assert twins.pixels is not None
        for twin in (twins.embed, twins.pixels):
            assert twin.error is None
            assert twin.prompt_ids == plain.prompt_ids
            assert len(twin.tokens) == 1
            assert twin.label_logprobs != plain.label_logprobs
            assert twin.label_logprobs == pytest.approx(plain.label_logprobs, abs=0.5)
            assert plain.evidence.prefill is not None
            assert twin.evidence.prefill is not None
            assert 0 < distance(plain.evidence.prefill, twin.evidence.prefill) < 0.1
        assert twins.embed.evidence.embed == plain.evidence.embed
        assert plain.evidence.embed is not None
        assert twins.pixels.evidence.embed is not None
        assert 0 < distance(plain.evidence.embed, twins.pixels.evidence.embed) < 0.01


def test_what_a_twin_draws_depends_on_the_seed_and_the_picture_alone(
    twinned: DesktopArm, pictures: list[Prepared]
) -> None:
    first, second = twinned.twin(pictures[:2], 0, 0)
    assert first.pixels is None
    (alone,) = twinned.twin(pictures[1:2], 0, 0)
    assert answers(alone.embed) == answers(second.embed)
    (other,) = twinned.twin(pictures[1:2], 1, 0)
    assert answers(other.embed) != answers(second.embed)


def test_the_twins_of_an_image_that_cannot_be_read_have_its_fault(
    twinned: DesktopArm, pictures: list[Prepared], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(pictures[0].pixels_path.read_bytes()[:300])
    bad = Prepared("bad", 0, 0, damaged, pictures[0].pixels_sha256)
    broken, whole = twinned.twin([bad, pictures[1]], 0, 2)
    assert broken.pixels is not None
    for one in (broken.own, broken.embed, broken.pixels):
        assert one.error is not None
        assert one.error.kind == "image_decode"
    assert whole.embed.error is None
    assert np.isfinite(list(whole.embed.label_logprobs.values())).all()
