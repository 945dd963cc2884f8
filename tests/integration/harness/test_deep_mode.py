"""Evidence, recordings, driving and twins of the arms on this host, on the tiny bundle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from driftloop.fixtures.drifts.tensors import scaled, zeroed
from driftloop.harness.arms import trajectory
from driftloop.harness.arms.base import Look, Prepared
from driftloop.harness.arms.desktop import DesktopArm
from driftloop.harness.arms.fingerprint import fingerprint
from driftloop.harness.arms.trajectory import Trajectory
from driftloop.harness.bundle import Bundle
from driftloop.harness.comparison.case_comparison import distance
from driftloop.harness.contract import Contract, Runtime, Tiling
from driftloop.harness.records.observation import Observation
from tests.arm_work import (
    APP,
    ARMS,
    CONTRACT,
    REFERENCE,
    Opened,
    answers,
    desktop,
    looked,
    observed,
    under,
)
from tests.tiny_layers import OUTPUTS

from .conftest import Damaged

Driven = Callable[..., list[Observation]]
Way = Callable[..., list[Trajectory]]

STAGES = ("pixels", "embed", "prefill")
CLEAN = 1e-2
"""Relative: far above what f16 weights move (3e-4), far below any planted change."""
SMALL_BATCH = REFERENCE.model_copy(update={"batch": 7})


@pytest.fixture(scope="module")
def looks(tiny_bundle: Bundle, pictures: list[Prepared]) -> dict[str, list[Look]]:
    """By kind of arm, of the first two pictures."""
    return {kind: looked(arm, tiny_bundle, pictures[:2]) for kind, arm in ARMS.items()}


@pytest.fixture(params=ARMS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def apart(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(candidate - reference) / np.linalg.norm(reference))


# Evidence


def test_another_picture_is_far_away(looks: dict[str, list[Look]]) -> None:
    first, second = (look.observation.evidence.pixels for look in looks["torch"])
    assert first is not None
    assert second is not None
    assert distance(first, second) > 0.1


def test_recording_changes_no_answer_and_neither_does_a_canary(
    kind: str, looks: dict[str, list[Look]], tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    recorded = [look.observation for look in looks[kind]]
    again = replace(pictures[0], canary="again")
    *seen, canary = observed(ARMS[kind], tiny_bundle, [*pictures[:2], again])
    assert [*map(answers, seen), answers(canary)] == list(map(answers, [*recorded, recorded[0]]))
    assert [one.canary for one in (*recorded, canary)] == [None, None, "again"]
    for look in looks[kind]:
        for stage in STAGES:
            told = getattr(look.observation.evidence, stage)
            assert told == fingerprint(look.tensors[stage])


# Layers


@pytest.mark.parametrize(("tiling", "tiles", "tokens"), [("single", 1, 32), ("split", 5, 58)])
def test_every_layer_of_a_clean_conversion_is_close_under_the_same_name_and_shape(
    tiling: Tiling, tiles: int, tokens: int, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    arms = (*ARMS.values(), desktop("f16", SMALL_BATCH))
    above, below, cut = (
        looked(arm, tiny_bundle, pictures[:1], under(tiling))[0].tensors for arm in arms
    )
    assert list(above) == list(below) == OUTPUTS
    for name, reference in above.items():
        assert below[name].shape == reference.shape, name
        assert apart(reference, below[name]) < CLEAN, name
        assert apart(below[name], cut[name]) < 1e-3, f"{name}, in small batches"
    shapes = {
        "pixels": (tiles, 3, 128, 128),
        "vision layer 1 ffn": (tiles * 64, 96),
        "embed": (tiles * 4, 96),
        "text embeddings": (tokens - tiles * 4, 96),
        "text layer 0 ffn": (tokens, 96),
        "text layer 1 attention": (1, 96),
        "text norm": (1, 96),
    }
    assert {name: above[name].shape for name in shapes} == shapes


@pytest.mark.parametrize(
    ("tensor", "factor", "layer"),
    [
        ("v.patch_embd.bias", 3.0, "vision patches"),
        ("v.blk.0.attn_out.weight", 0.0, "vision layer 0 attention"),
        ("v.blk.1.attn_v.weight", 1.05, "vision layer 1 attention"),
        ("v.blk.1.ffn_down.weight", 1.05, "vision layer 1 ffn"),
        ("v.post_ln.weight", 1.05, "vision norm"),
        ("mm.model.fc.weight", 1.05, "embed"),
        ("blk.0.ffn_up.weight", 1.05, "text layer 0 ffn"),
        ("blk.1.attn_output.weight", 1.05, "text layer 1 attention"),
        ("output_norm.weight", 1.05, "text norm"),
    ],
)
def test_a_changed_tensor_first_shows_at_its_layer(
    tensor: str,
    factor: float,
    layer: str,
    damaged: Damaged,
    looks: dict[str, list[Look]],
    pictures: list[Prepared],
) -> None:
    (look,) = looked(desktop(), damaged("f16", tensor, scaled(factor)), pictures[:1])
    reference = looks["torch"][0].tensors
    beyond = (name for name in reference if apart(reference[name], look.tensors[name]) > CLEAN)
    assert next(beyond) == layer


def test_logits_that_are_no_numbers_are_a_fault_whose_evidence_says_so(
    damaged: Damaged, pictures: list[Prepared]
) -> None:
    broken = damaged("f16", "output_norm.weight", scaled(math.nan))
    (look,) = looked(desktop(), broken, pictures[:1])
    seen = look.observation
    assert seen.error is not None
    assert seen.error.kind == "decode"
    assert seen.evidence.prefill is not None
    assert not seen.evidence.prefill.finite
    assert seen.evidence.embed is not None
    assert seen.evidence.embed.finite


# Driving


def off(observation: Observation) -> dict[str, float]:
    """The outputs that are not exactly the reference's, by their errors."""
    return {
        one.name: one.error
        for one in observation.driven
        if (one.error, one.gain, one.shift) != (0.0, 0.0, 0.0)
    }


@pytest.fixture
def way(tiny_bundle: Bundle, tmp_path: Path) -> Way:
    """An arm's trajectories of pictures."""

    def recorded(
        opened: Opened, images: Sequence[Prepared], contract: Contract = CONTRACT
    ) -> list[Trajectory]:
        return [
            trajectory.write(look, tmp_path / f"trajectory-{place}")
            for place, look in enumerate(looked(opened, tiny_bundle, images, contract))
        ]

    return recorded


@pytest.fixture
def driven(pictures: list[Prepared], tiny_bundle: Bundle) -> Driven:
    """An arm along trajectories of the first pictures."""

    def drive(
        opened: Opened,
        along: Sequence[Trajectory],
        bundle: Bundle = tiny_bundle,
        contract: Contract = CONTRACT,
    ) -> list[Observation]:
        with closing(opened(bundle, contract)) as arm:
            return list(arm.drive(list(zip(pictures, along, strict=False))))

    return drive


@pytest.mark.parametrize("tiling", ["single", "split"])
@pytest.mark.parametrize(
    "arm",
    [*ARMS.values(), desktop("q8_0", APP), desktop("q8_0", APP.model_copy(update={"batch": 7}))],
    ids=["torch", "f16", "q8_0+app", "a small batch"],
)
def test_an_arm_along_its_own_trajectory_is_off_by_exactly_nothing_and_answers_the_same(
    arm: Opened,
    tiling: Tiling,
    tiny_bundle: Bundle,
    pictures: list[Prepared],
    way: Way,
    driven: Driven,
) -> None:
    contract = under(tiling)
    plain = observed(arm, tiny_bundle, pictures[:2], contract)
    seen = driven(arm, way(arm, pictures[:2], contract), contract=contract)
    assert [one.driven for one in plain] == [[], []]
    assert list(map(answers, seen)) == list(map(answers, plain))
    for one in seen:
        assert [output.name for output in one.driven] == OUTPUTS
        assert off(one) == {}


def test_every_output_of_a_clean_conversion_is_close_and_none_grows(
    pictures: list[Prepared], way: Way, driven: Driven
) -> None:
    for one in driven(desktop(), way(ARMS["torch"], pictures)):
        assert [output.name for output in one.driven] == OUTPUTS
        for output in one.driven:
            assert output.error < 2e-3, output.name
            assert abs(output.gain) < 1e-3, output.name
            assert abs(output.shift) < 1e-3, output.name


@pytest.mark.parametrize("runtime", [REFERENCE, APP], ids=["reference", "app"])
@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("blk.0.attn_v.weight", "text layer 0 attention"),
        ("blk.1.attn_v.weight", "text layer 1 attention"),
        ("v.blk.1.attn_v.weight", "vision layer 1 attention"),
    ],
)
def test_five_percent_more_in_one_layer_show_there_alone(
    tensor: str,
    layer: str,
    runtime: Runtime,
    damaged: Damaged,
    pictures: list[Prepared],
    way: Way,
    driven: Driven,
) -> None:
    arm = desktop("q8_0", runtime)
    broken = damaged("q8_0", tensor, scaled(1.05))
    for one in driven(arm, way(arm, pictures[:2]), broken):
        assert list(off(one)) == [layer]
        (seen,) = (output for output in one.driven if output.name == layer)
        assert 0.02 < seen.error < 0.08
        assert 0.01 < seen.gain < 0.08


def test_a_layer_that_gives_nothing_is_off_by_all_of_it(
    damaged: Damaged, pictures: list[Prepared], way: Way, driven: Driven
) -> None:
    arm = desktop("q8_0", APP)
    broken = damaged("q8_0", "blk.1.ffn_down.weight", zeroed)
    (one,) = driven(arm, way(arm, pictures[:1]), broken)
    assert off(one) == {"text layer 1 ffn": 1.0}


@pytest.mark.parametrize(("its", "candidates"), [("split", "single"), ("single", "split")])
def test_along_another_tilings_way_the_pixels_alone_differ(
    its: Tiling,
    candidates: Tiling,
    kind: str,
    tiny_bundle: Bundle,
    pictures: list[Prepared],
    way: Way,
    driven: Driven,
) -> None:
    arm = ARMS[kind]
    wanted, own = (
        observed(arm, tiny_bundle, pictures[:1], under(one))[0] for one in (its, candidates)
    )
    reference = way(arm, pictures[:1], under(its))
    (one,) = driven(arm, reference, contract=under(candidates))
    assert off(one) == {"pixels": math.inf}
    assert (one.grid, one.prompt_ids) == (own.grid, own.prompt_ids)
    assert one.evidence.pixels == own.evidence.pixels
    assert one.tokens == wanted.tokens
    assert Observation.model_validate_json(one.model_dump_json()) == one


def test_a_trajectory_that_cannot_be_read_is_a_fault_of_its_image_alone(
    kind: str, pictures: list[Prepared], way: Way, driven: Driven, tmp_path: Path
) -> None:
    good, other = way(ARMS[kind], pictures[:2])
    cut = tmp_path / "cut"
    cut.write_bytes(good.path.read_bytes()[:-4])
    broken, whole = driven(ARMS[kind], [Trajectory(cut, good.sha256), other])
    assert broken.error is not None
    assert broken.error.kind == "trajectory"
    assert (broken.driven, broken.label) == ([], None)
    assert whole.error is None
    assert off(whole) == {}


def test_another_models_trajectory_is_a_fault(
    kind: str,
    looks: dict[str, list[Look]],
    tiny_bundle: Bundle,
    pictures: list[Prepared],
    tmp_path: Path,
) -> None:
    look = looks[kind][0]
    narrow = look.tensors | {"embed": look.tensors["embed"][:, :64]}
    strange = look.observation.model_copy(update={"prompt_ids": [1, -1, 10**6]})
    asked = [
        (pictures[0], trajectory.write(other, tmp_path / str(place)))
        for place, other in enumerate(
            (Look(strange, look.tensors), Look(look.observation, narrow), look)
        )
    ]
    with closing(ARMS[kind](tiny_bundle, CONTRACT)) as arm:
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
    with closing(DesktopArm(tiny_bundle, "f16", REFERENCE, CONTRACT, "desktop:f16")) as arm:
        yield arm


def test_twins_are_the_arm_with_next_to_nothing_changed(
    twinned: DesktopArm, pictures: list[Prepared]
) -> None:
    seen = list(twinned.observe(pictures[:3]))
    for plain, twins in zip(seen, twinned.twin(pictures[:3], 0, 3), strict=True):
        assert answers(twins.own) == answers(plain)
        assert twins.pixels is not None
        for twin in (twins.embed, twins.pixels):
            assert twin.error is None
            assert twin.prompt_ids == plain.prompt_ids
            assert len(twin.tokens or ()) == 1
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
    twinned: DesktopArm, pictures: list[Prepared], damaged_picture: Prepared
) -> None:
    broken, whole = twinned.twin([damaged_picture, pictures[1]], 0, 2)
    assert broken.pixels is not None
    for one in (broken.own, broken.embed, broken.pixels):
        assert one.error is not None
        assert one.error.kind == "image_decode"
    assert whole.embed.error is None
    assert np.isfinite(list(whole.embed.label_logprobs.values())).all()
