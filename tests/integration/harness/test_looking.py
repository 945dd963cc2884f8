"""Evidence and recordings of the arms on this host, on the tiny bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from harness import bundle as bundles
from harness import contract as contracts
from harness.arms.base import Look, Prepared
from harness.arms.desktop import DesktopArm
from harness.arms.fingerprint import fingerprint
from harness.arms.torch import TorchArm
from harness.bundle import Bundle
from harness.comparison.case_comparison import distance
from harness.contract import Contract, Tiling
from harness.records.observation import Observation
from tests.tiny_layers import OUTPUTS

CONTRACT = contracts.load("default")
STAGES = ("pixels", "embed", "prefill")
CLEAN = 1e-2
"""Relative: far above what f16 weights move (3e-4), far below any planted change."""

Arm = TorchArm | DesktopArm


def under(tiling: Tiling) -> Contract:
    return CONTRACT.model_copy(update={"tiling": tiling})


@contextmanager
def opened(kind: str, bundle: Bundle, contract: Contract = CONTRACT) -> Iterator[Arm]:
    arm: Arm = (
        TorchArm(bundle.checkpoint, contract)
        if kind == "torch"
        else DesktopArm(bundle, "f16", contract.runtime.reference(), contract, "desktop:f16")
    )
    yield arm
    arm.close()


def looked(
    kind: str, bundle: Bundle, *images: Prepared, contract: Contract = CONTRACT
) -> list[Look]:
    with opened(kind, bundle, contract) as arm:
        return list(arm.record(images))


@pytest.fixture(scope="module")
def torch_looks(tiny_bundle: Bundle, pictures: list[Prepared]) -> list[Look]:
    return looked("torch", tiny_bundle, *pictures[:2])


@pytest.fixture(scope="module")
def desktop_looks(tiny_bundle: Bundle, pictures: list[Prepared]) -> list[Look]:
    return looked("desktop", tiny_bundle, *pictures[:2])


@pytest.fixture(params=["torch", "desktop"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def looks(kind: str, torch_looks: list[Look], desktop_looks: list[Look]) -> list[Look]:
    return torch_looks if kind == "torch" else desktop_looks


def apart(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(candidate - reference) / np.linalg.norm(reference))


def answers(observation: Observation) -> dict[str, object]:
    """What an arm computed, without where, when and how fast."""
    fields = {"prompt_ids", "tokens", "label_logprobs", "evidence", "text", "stop_reason", "error"}
    return observation.model_dump(include=fields)


# Evidence


def test_a_clean_conversion_is_close_at_every_stage(
    torch_looks: list[Look], desktop_looks: list[Look]
) -> None:
    for above, below in zip(torch_looks, desktop_looks, strict=True):
        for stage in STAGES:
            reference = getattr(above.observation.evidence, stage)
            candidate = getattr(below.observation.evidence, stage)
            assert distance(reference, candidate) < CLEAN, stage


def test_another_picture_is_far_away(torch_looks: list[Look]) -> None:
    first, second = (look.observation.evidence for look in torch_looks)
    assert first.pixels is not None
    assert second.pixels is not None
    assert distance(first.pixels, second.pixels) > 0.1


def test_recording_changes_no_answer(
    kind: str, looks: list[Look], tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    with opened(kind, tiny_bundle) as arm:
        observed = list(arm.observe(pictures[:2]))
    assert [answers(one) for one in observed] == [answers(look.observation) for look in looks]


def test_evidence_tells_of_the_tensors_that_are_recorded(looks: list[Look]) -> None:
    for look in looks:
        for stage in STAGES:
            assert getattr(look.observation.evidence, stage) == fingerprint(look.tensors[stage])


def test_a_canary_is_observed_as_any_image_and_says_what_it_is(
    kind: str, looks: list[Look], tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    with opened(kind, tiny_bundle) as arm:
        (seen,) = arm.observe([replace(pictures[0], canary="again")])
    assert seen.canary == "again"
    assert answers(seen) == answers(looks[0].observation)
    assert looks[0].observation.canary is None


# Layers


@pytest.mark.parametrize(("tiling", "tiles", "tokens"), [("single", 1, 32), ("split", 5, 58)])
def test_every_layer_of_a_clean_conversion_is_close_under_the_same_name_and_shape(
    tiling: Tiling, tiles: int, tokens: int, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    image = pictures[0]
    (above,) = looked("torch", tiny_bundle, image, contract=under(tiling))
    (below,) = looked("desktop", tiny_bundle, image, contract=under(tiling))
    assert list(above.tensors) == list(below.tensors) == OUTPUTS
    for name, reference in above.tensors.items():
        assert below.tensors[name].shape == reference.shape, name
        assert apart(reference, below.tensors[name]) < CLEAN, name
    assert above.tensors["pixels"].shape == (tiles, 3, 128, 128)
    assert above.tensors["vision layer 1 ffn"].shape == (tiles * 64, 96)
    assert above.tensors["embed"].shape == (tiles * 4, 96)
    assert above.tensors["text embeddings"].shape == (tokens - tiles * 4, 96)
    assert above.tensors["text layer 0 ffn"].shape == (tokens, 96)
    assert above.tensors["text layer 1 attention"].shape == (1, 96)
    assert above.tensors["text norm"].shape == (1, 96)


def test_a_small_batch_gives_the_same_rows(tiny_bundle: Bundle, pictures: list[Prepared]) -> None:
    runtime = CONTRACT.runtime.reference().model_copy(update={"batch": 7})
    arm = DesktopArm(tiny_bundle, "f16", runtime, under("split"), "desktop:f16")
    (cut,) = arm.record(pictures[:1])
    (whole,) = looked("desktop", tiny_bundle, pictures[0], contract=under("split"))
    for name, reference in whole.tensors.items():
        assert apart(reference, cut.tensors[name]) < 1e-3, name


@pytest.fixture
def damaged(tiny_bundle: Bundle, tmp_path: Path) -> Callable[[str, str, float], Bundle]:
    """A copy of the bundle in which one tensor of one half is multiplied."""

    def damage(half: str, tensor: str, factor: float) -> Bundle:
        folder = tmp_path / "copy"
        shutil.copytree(tiny_bundle.path, folder)
        copy = bundles.load(folder)
        path = copy.text_model("f16") if half == "text" else copy.mmproj("f16")
        reader = gguf.GGUFReader(path, "r+")
        (found,) = (one for one in reader.tensors if one.name == tensor)
        found.data[:] = found.data * found.data.dtype.type(factor)
        found.data.flush()
        return copy

    return damage


@pytest.mark.parametrize(
    ("half", "tensor", "factor", "layer"),
    [
        ("vision", "v.patch_embd.bias", 3.0, "vision patches"),
        ("vision", "v.blk.0.attn_out.weight", 0.0, "vision layer 0 attention"),
        ("vision", "v.blk.1.attn_v.weight", 1.05, "vision layer 1 attention"),
        ("vision", "v.blk.1.ffn_down.weight", 1.05, "vision layer 1 ffn"),
        ("vision", "v.post_ln.weight", 1.05, "vision norm"),
        ("vision", "mm.model.fc.weight", 1.05, "embed"),
        ("text", "blk.0.ffn_up.weight", 1.05, "text layer 0 ffn"),
        ("text", "blk.1.attn_output.weight", 1.05, "text layer 1 attention"),
        ("text", "output_norm.weight", 1.05, "text norm"),
    ],
)
def test_a_changed_tensor_first_shows_at_its_layer(
    half: str,
    tensor: str,
    factor: float,
    layer: str,
    damaged: Callable[[str, str, float], Bundle],
    torch_looks: list[Look],
    pictures: list[Prepared],
) -> None:
    (look,) = looked("desktop", damaged(half, tensor, factor), pictures[0])
    beyond = [
        name
        for name, reference in torch_looks[0].tensors.items()
        if apart(reference, look.tensors[name]) > CLEAN
    ]
    assert beyond[0] == layer


def test_logits_that_are_no_numbers_are_a_fault_whose_evidence_says_so(
    damaged: Callable[[str, str, float], Bundle], pictures: list[Prepared]
) -> None:
    broken = damaged("text", "output_norm.weight", float("nan"))
    (look,) = looked("desktop", broken, pictures[0])
    assert look.observation.error is not None
    assert look.observation.error.kind == "decode"
    assert look.observation.evidence.prefill is not None
    assert not look.observation.evidence.prefill.finite
    assert look.observation.evidence.embed is not None
    assert look.observation.evidence.embed.finite
