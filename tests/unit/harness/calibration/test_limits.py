"""From what was seen to a limit, and from limits to a gates file that is read back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.calibration.gates_file import gates_text
from harness.calibration.limits import KEYS, Measured, differing, largest, limits, round_up
from harness.judgement import gating
from harness.judgement.gating import HopLimits
from harness.ladder import CHANGES


def seen(**values: float) -> Measured:
    """Measured, None for everything not named."""
    return Measured(**{measure: values.get(measure) for measure in KEYS})


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (0.0, 0.0),
        (0.00440, 0.0044),
        (0.00441, 0.0045),
        (0.0995, 0.1),
        (0.1, 0.1),
        (1.0, 1.0),
        (1.01, 1.1),
        (0.28, 0.28),
        (7.0e-7, 7.0e-7),
        (7.01e-7, 7.1e-7),
    ],
)
def test_a_limit_is_rounded_up_to_two_digits(value: float, rounded: float) -> None:
    assert round_up(value) == rounded


@given(st.floats(min_value=1e-12, max_value=1e6))
def test_rounding_up_never_lowers_and_adds_a_tenth_at_most(value: float) -> None:
    rounded = round_up(value)
    assert value * (1 - 1e-9) <= rounded <= value * 1.1 * (1 + 1e-9)
    assert round_up(rounded) == rounded


def test_limits_are_what_was_seen_with_room_and_margins_as_they_are() -> None:
    assert limits(seen(embed=0.0041, label_logprob=0.3, margin=0.24), factor=2.0) == {
        "max_embed_distance": 0.0082,
        "max_label_logprob_difference": 0.6,
        "flip_margin": 0.24,
    }


def test_arms_that_were_equal_still_get_a_rounding_error() -> None:
    assert limits(seen(pixels=0.0), factor=2.0) == {"max_pixels_distance": 1e-6}


def test_the_worst_pair_of_a_hop_counts_measure_by_measure() -> None:
    worst = largest([seen(embed=0.1, prefill=0.5), seen(embed=0.2), seen(prefill=0.3)])
    assert worst == seen(embed=0.2, prefill=0.5)


def test_every_measure_has_a_key_that_a_hop_knows() -> None:
    assert set(KEYS.values()) <= set(HopLimits.model_fields)


def test_only_what_differs_from_the_default_is_written() -> None:
    default = {change: gating.load().hops.of(change) for change in CHANGES}
    same = default["runtime"].max_embed_distance
    found = differing(
        {"runtime": {"max_embed_distance": same, "max_prefill_distance": 0.123}}, default
    )
    assert found == {"runtime": {"max_prefill_distance": 0.123}}


def test_a_written_file_is_read_as_gates_with_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    provenance: dict[str, str | int | float] = {
        "host": 'a "quoted" \\ machine',
        "images": 40,
        "factor": 2.0,
    }
    limits_found = {"platform": {"max_embed_distance": 1.2e-7, "flip_margin": 0.5}, "runtime": {}}
    path.write_text(gates_text(limits_found, provenance))
    gates = gating.load(path)
    default = gating.load()
    assert gates.calibration == provenance
    assert gates.hops.platform.max_embed_distance == pytest.approx(1.2e-7)
    assert gates.hops.platform.flip_margin == 0.5
    assert gates.hops.platform.max_prefill_distance == default.hops.platform.max_prefill_distance
    assert gates.hops.runtime == default.hops.runtime
    assert math.isclose(gates.agreement.accept, default.agreement.accept)
