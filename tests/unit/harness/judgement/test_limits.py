"""What a hop may differ by: floors and absolute limits of whole stages, rows of driven layers."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from driftloop.harness import gates_file, ladder
from driftloop.harness.comparison.terms import terms
from driftloop.harness.gates_file import Gates
from driftloop.harness.judgement import limits
from driftloop.harness.ladder import Change, Hop
from driftloop.harness.tolerance import DrivenLimit, Part, Tolerance

from ..run_factory import floor, phone_record, run_record

GATES = gates_file.load()
TABLE = GATES.driven
ARMS = ("torch", "desktop:f16", "desktop:q8_0", "desktop:q8_0+app", "phone:q8_0+app")
UNKNOWN = DrivenLimit(math.inf, math.inf, math.inf)


def hop_between(*arms: str) -> Hop:
    (hop,) = ladder.hops(ladder.parse_ladder(arms), ("PHONE1",))
    return hop


def with_limits(change: Change, **own: float) -> Gates:
    hops = {change: GATES.hops.of(change).model_copy(update=own)}
    return GATES.model_copy(update={"hops": GATES.hops.model_copy(update=hops)})


# Whole stages


PLATFORM = hop_between(*ARMS[3:])
QUANTIZATION = hop_between(*ARMS[1:3])


def test_without_a_floor_nothing_but_pixel_values_is_judged_and_no_flip_excused() -> None:
    expected = Tolerance(math.inf, 0.0, 1e-5, math.inf, math.inf)
    for hop in (PLATFORM, QUANTIZATION):
        assert limits.tolerance(GATES, hop, ()) == expected
        assert limits.tolerance(GATES, hop, [floor("desktop:f32")]) == expected


def test_kernels_may_move_as_far_as_multiples_of_the_floor_measured_on_the_model() -> None:
    gates = with_limits("platform", floors=3.0, flip_floors=2.0)
    expected = Tolerance(0.06, 0.06, 1e-5, pytest.approx(3e-4), pytest.approx(0.03))
    assert limits.tolerance(gates, PLATFORM, [floor()]) == expected
    # Arithmetic that changes on purpose has a flip margin and no limits from floors.
    expected = Tolerance(math.inf, 0.03, 1e-5, math.inf, math.inf)
    assert limits.tolerance(GATES, QUANTIZATION, [floor("desktop:q8_0")]) == expected


def test_an_app_beside_a_phone_has_the_floor_of_the_same_files_on_this_host() -> None:
    app = hop_between("phone:q8_0+app", "app")
    own = limits.tolerance(GATES, app, [floor("desktop:q8_0+app")])
    assert own == limits.tolerance(GATES, PLATFORM, [floor("desktop:q8_0+app")])
    assert limits.tolerance(GATES, app, [floor("desktop:q8_0")]).flip_margin == 0.0


def test_the_larger_floor_of_the_two_arms_counts_and_a_measure_without_one_is_not_judged() -> None:
    both = [floor("desktop:q8_0", margin=0.5), floor("desktop:f16", embed=None)]
    assert limits.tolerance(GATES, QUANTIZATION, both).flip_margin == 0.5
    gates = with_limits("quantization", floors=2.0)
    found = limits.tolerance(gates, QUANTIZATION, both[1:])
    assert (found.embed, found.prefill) == (math.inf, 0.02)


def test_an_absolute_limit_replaces_the_floor_and_limits_of_several_changes_add_up() -> None:
    gates = with_limits("platform", max_embed_distance=0.5, flip_margin=0.25)
    found = limits.tolerance(gates, PLATFORM, [floor()])
    assert (found.embed, found.flip_margin, found.prefill) == (0.5, 0.25, 0.04)
    several = hop_between("torch", "desktop:q8_0")
    gates = with_limits("conversion", flip_margin=0.25)
    assert limits.tolerance(gates, several, [floor("desktop:q8_0")]).flip_margin == 0.28


# Driven layers


def driven(hop: Hop, **runtime: object) -> Mapping[Part, DrivenLimit]:
    """On a run whose app has the default contract, but for its runtime."""
    record = run_record(ARMS, [phone_record()])
    asked = record.contract.model_copy(
        update={"runtime": record.contract.runtime.model_copy(update=runtime)}
    )
    under = terms(record.model_copy(update={"contract": asked}))
    return limits.driven(TABLE, hop, *map(under.get, hop.ends))


@pytest.mark.parametrize(
    ("arms", "rows"),
    [
        (ARMS[:2], [TABLE.conversion]),
        (ARMS[1:3], [TABLE.weights["q8_0"]]),
        (ARMS[2:4], [TABLE.flash_attention, TABLE.cache["q4_0"]]),
        (ARMS[3:], [TABLE.platform, TABLE.platform_cache["q4_0"]]),
        (("torch", "desktop:q8_0"), [TABLE.conversion, TABLE.weights["q8_0"]]),
    ],
    ids=["conversion", "quantization", "runtime", "platform", "several"],
)
def test_limits_are_those_of_what_the_hop_changes(arms: tuple[str, ...], rows: list[Any]) -> None:
    found = driven(hop_between(*arms))
    for part, limit in found.items():
        assert limit == sum((row.by_part[part] for row in rows), DrivenLimit(0.0, 0.0, 0.0))


def test_a_cache_that_rounds_may_change_only_attention_and_another_nothing() -> None:
    found = driven(hop_between(*ARMS[2:4]), flash_attention=False)
    assert found["text attention"] == TABLE.cache["q4_0"].by_part["text attention"]
    assert found["vision layers"] == found["text ffn"] == DrivenLimit(0.0, 0.0, 0.0)
    found = driven(hop_between(*ARMS[3:]), cache_type_k="f16", cache_type_v="f16")
    assert found == TABLE.platform.by_part


def test_what_was_never_measured_is_not_judged() -> None:
    other = driven(hop_between(*ARMS[2:4]), cache_type_k="q5_1", cache_type_v="q5_1")
    assert set(other.values()) == {UNKNOWN}
    assert set(driven(hop_between("torch", "desktop:q2_k")).values()) == {UNKNOWN}
