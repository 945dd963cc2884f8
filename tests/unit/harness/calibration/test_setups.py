"""Which arms are held against which, by what the bundle, the host and the phones allow."""

from __future__ import annotations

from harness import contract as contracts
from harness.calibration.setups import Pair, pairs

CONTRACT = contracts.load("default")


def ladder(found: tuple[Pair, ...]) -> dict[str, tuple[str, ...]]:
    """The pairs of two different arms, and the hops they are."""
    return {pair.name: pair.hops for pair in found if pair.candidate.variant == ""}


def test_every_hop_of_the_ladder_is_measured() -> None:
    found = pairs(CONTRACT, "q8_0", ("f16", "f32", "q8_0"), ["A", "B"], with_torch=True)
    assert ladder(found) == {
        "torch -> desktop:f16": ("conversion",),
        "desktop:f32 -> desktop:f16": ("conversion",),
        "desktop:f16 -> desktop:q8_0": ("quantization",),
        "desktop:q8_0 -> desktop:q8_0+app": ("runtime",),
        "desktop:q8_0+app -> phone:q8_0+app A": ("platform",),
        "desktop:q8_0+app -> phone:q8_0+app B": ("platform",),
    }


def test_without_torch_a_phone_or_other_weights_those_hops_are_left_out() -> None:
    found = pairs(CONTRACT, "f16", ("f16",), [], with_torch=False)
    assert ladder(found) == {"desktop:f16 -> desktop:f16+app": ("runtime",)}


def test_an_arm_against_itself_counts_for_every_hop_it_stands_on() -> None:
    found = pairs(CONTRACT, "q8_0", ("f16", "q8_0"), [], with_torch=True)
    itself = [pair for pair in found if pair.candidate.variant]
    assert [(pair.candidate.name, pair.hops) for pair in itself] == [
        ("desktop:f16 again", ("conversion", "quantization")),
        ("desktop:f16 with one thread", ("conversion", "quantization")),
        ("desktop:f16 in batches of 8", ("conversion", "quantization")),
        ("desktop:q8_0+app again", ("runtime", "platform")),
        ("desktop:q8_0+app with one thread", ("runtime", "platform")),
        ("desktop:q8_0+app in batches of 8", ("runtime", "platform")),
    ]
    for pair in itself:
        changed = (
            pair.candidate.runtime.model_dump().items()
            - pair.reference.runtime.model_dump().items()
        )
        assert {key for key, _ in changed} <= {"threads", "vision_threads", "batch"}


def test_a_host_that_uses_one_thread_is_varied_the_other_way() -> None:
    single = CONTRACT.model_copy(
        update={"runtime": CONTRACT.runtime.model_copy(update={"threads": 1})}
    )
    names = [pair.candidate.name for pair in pairs(single, "q8_0", ("f16",), [], with_torch=False)]
    assert "desktop:f16 with two threads" in names
