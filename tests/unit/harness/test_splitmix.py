"""splitmix64 against its published values."""

from __future__ import annotations

from harness.arms import splitmix

# Vigna's splitmix64.c, first five outputs of the state 1234567.
_OUTPUTS_OF_1234567 = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_the_first_outputs_are_the_published_ones() -> None:
    assert splitmix.outputs(1234567, 1, 5).tolist() == _OUTPUTS_OF_1234567


def test_outputs_do_not_depend_on_where_one_starts() -> None:
    assert splitmix.outputs(1234567, 4, 2).tolist() == _OUTPUTS_OF_1234567[3:]


def test_a_seed_counts_modulo_two_to_the_64() -> None:
    assert splitmix.outputs(2**64 + 5, 1, 3).tolist() == splitmix.outputs(5, 1, 3).tolist()
