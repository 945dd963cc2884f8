"""Driven layers: which output of a hop is at fault, at any depth."""

import math

import pytest

from driftloop.devices.runner.protocol import DrivenLayer
from driftloop.harness import ladder
from driftloop.harness.comparison.driven import LayerFault, faults, of_hop, outputs, stage_of
from driftloop.harness.tolerance import DrivenLimit

from ..run_factory import DRIVEN, OUTPUTS, driven_case

HOP, OTHER = ladder.hops(ladder.parse_ladder(["torch", "desktop:f16", "desktop:q8_0"]), ())


def fault_of(*errors: dict[str, float]) -> LayerFault:
    (found,) = faults([driven_case(HOP, i, one) for i, one in enumerate(errors)], DRIVEN)
    return found


def test_a_hop_whose_outputs_are_within_their_limits_has_no_fault() -> None:
    cases = [driven_case(HOP, index) for index in range(3)]
    assert faults(cases, DRIVEN) == ()
    assert [one.name for one in outputs(cases, DRIVEN)] == [*OUTPUTS[1:]]
    assert faults([], DRIVEN) == outputs([], DRIVEN) == ()


def test_an_output_beyond_its_limit_is_at_fault_and_no_other_is() -> None:
    found = fault_of({"vision layer 1 ffn": 0.5}, {"vision layer 1 ffn": 0.3}, {})
    assert (found.stage, found.layer) == ("embed", "vision layer 1 ffn")
    assert (found.places, found.of, found.others) == ({(0, 0), (0, 1)}, 3, 0)
    output = found.output
    assert (output.error, output.typical_error, output.limit_error) == (0.5, 0.3, 0.02)
    assert (output.excess, output.beyond) == (pytest.approx(25), 2)


def test_each_part_has_its_own_limit() -> None:
    assert faults([driven_case(HOP, 0, {"text layer 2 attention": 0.09})], DRIVEN) == ()
    found = fault_of({"text layer 0 ffn": 1e-9})
    assert (found.stage, found.layer) == ("prefill", "text layer 0 ffn")
    assert found.output.excess == math.inf


@pytest.mark.parametrize(
    ("errors", "named"),
    [
        # The first in the order of computation that stands out.
        ({"vision layer 2 ffn": 0.5, "vision layer 0 ffn": 0.4}, "vision layer 0 ffn"),
        # Not one that is just beyond: the tail of rounding beside a real fault.
        ({"vision layer 2 ffn": 0.5, "vision layer 0 ffn": 0.03}, "vision layer 2 ffn"),
        ({"vision patches": 0.03, "vision norm": math.inf}, "vision norm"),
        # Rounding comes nowhere near four times a limit, whatever stands beside it.
        ({"vision layer 2 ffn": 0.9, "vision layer 0 ffn": 0.09}, "vision layer 0 ffn"),
        ({"embed": 0.5}, None),
    ],
)  # fmt: skip
def test_the_layer_that_is_named(errors: dict[str, float], named: str | None) -> None:
    found = fault_of(errors)
    assert (found.layer, found.others) == (named, len(errors) - 1)


def test_the_towers_are_at_fault_each_for_itself() -> None:
    both = [driven_case(HOP, 0, {"text layer 1 attention": 0.5, "vision patches": 0.5})]
    vision, text = faults(both, DRIVEN)
    assert (vision.stage, vision.layer) == ("embed", "vision patches")
    assert (text.stage, text.layer) == ("prefill", "text layer 1 attention")


@pytest.mark.parametrize(("gain", "shift"), [(0.03, 0.0), (-0.03, 0.0), (0.0, 0.03), (0.0, -0.03)])
def test_a_gain_or_a_shift_beyond_its_limit_is_a_fault_though_the_error_is_not(
    gain: float, shift: float
) -> None:
    layer = DrivenLayer(name="text layer 1 attention", error=0.05, gain=gain, shift=shift)
    (found,) = faults([driven_case(HOP, outputs=(layer,))], DRIVEN)
    assert (found.output.gain, found.output.shift) == (gain, shift)


def test_nothing_is_beyond_a_limit_that_was_never_measured_but_what_is_no_number() -> None:
    unknown = dict.fromkeys(DRIVEN, DrivenLimit(math.inf, math.inf, math.inf))
    assert faults([driven_case(HOP, 0, {"embed": 5.0})], unknown) == ()
    assert faults([driven_case(HOP, 0, {"embed": math.inf})], unknown)


@pytest.mark.parametrize(
    ("broken", "leaks"),
    [((0, 1, 1), True), ((1, 1, 1), False), ((0, 1, 0), False), ((1, 0, 0), False), ((1,), False)],
)
def test_a_fault_on_every_image_but_the_first_is_what_an_image_leaves_to_the_next(
    broken: tuple[int, ...], leaks: bool
) -> None:
    found = fault_of(*({"text layer 0 attention": float(one)} for one in broken))
    assert found.after_the_first is leaks


def test_limits_of_all_that_differs_add_up() -> None:
    assert DrivenLimit(1, 2, 3) + DrivenLimit(10, 20, 30) == DrivenLimit(11, 22, 33)


def test_a_hops_own_cases_are_those_of_its_arms_that_could_be_driven() -> None:
    own = [driven_case(HOP, 2), driven_case(HOP, 0)]
    others = [driven_case(OTHER), driven_case(HOP, phone="PHONE1")]
    unable = driven_case(HOP, 1, outputs=(), error="trajectory: damaged")
    assert of_hop(HOP, [own[0], *others, unable, own[1]]) == tuple(own)


def test_every_output_but_the_pixel_values_belongs_to_a_tower() -> None:
    assert [stage_of(name) for name in ("vision norm", "embed", "text embeddings", "prefill")] == [
        "embed", "embed", "prefill", "prefill",
    ]  # fmt: skip
    assert stage_of("pixels") is None
