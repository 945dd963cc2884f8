"""A phone stops at the session that decides its agreement, and not before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from harness.judgement import gating
from harness.judgement.gating import Gates
from harness.records.observation import Observation
from harness.records.record import RunRecord, Sampling
from harness.running.stopping import watch

from ..run_factory import flipped, observation, observations, phone_record, run_record

ARMS = ("desktop:q8_0+app", "phone:q8_0+app")
REFERENCE, PHONE = ARMS
SERIAL = "PHONE1"
FEWEST = 72
"""Images without a flip that the default plan accepts after."""


def _record(gates: Gates | None = None, **over: object) -> RunRecord:
    return run_record(ARMS, [phone_record(SERIAL)], gates, **over)


def _stops_after(
    record: RunRecord, answers: Iterable[Observation], before: Sequence[Observation] = ()
) -> tuple[int, str] | None:
    """The number of answers until the watch has enough, and its word."""
    seen = [*observations(REFERENCE, 400), *before]
    watched = watch(record, PHONE, SERIAL, seen)
    assert watched is not None
    for count, answer in enumerate(answers, start=1):
        if (why := watched.decided(answer)) is not None:
            assert watched.images == count + len(before)
            return count, why
    return None


def test_a_phone_that_agrees_stops_after_the_fewest_images_of_the_plan() -> None:
    found = _stops_after(_record(), observations(PHONE, 342, SERIAL))
    assert found == (FEWEST, f"accepted after {FEWEST} images")


def test_a_phone_that_does_not_agree_stops_much_earlier() -> None:
    found = _stops_after(_record(), (flipped(PHONE, index, SERIAL) for index in range(342)))
    assert found is not None
    count, why = found
    assert count < 20
    assert why.startswith("rejected")


def test_it_is_looked_at_only_after_whole_sessions() -> None:
    found = _stops_after(_record(), (flipped(PHONE, index, SERIAL) for index in range(342)))
    assert found is not None
    assert found[0] % 3 == 0


def test_one_flip_takes_more_images() -> None:
    answers = [
        flipped(PHONE, index, SERIAL) if index == 5 else observation(PHONE, index, SERIAL)
        for index in range(342)
    ]
    found = _stops_after(_record(), answers)
    assert found is not None
    assert found[0] > FEWEST


def test_canaries_decide_nothing() -> None:
    canaries = (observation(PHONE, index, SERIAL, canary="twice") for index in range(342))
    assert _stops_after(_record(), canaries) is None


def test_what_the_journal_holds_already_counts() -> None:
    before = observations(PHONE, 60, SERIAL)
    rest = [observation(PHONE, index, SERIAL) for index in range(60, 342)]
    assert _stops_after(_record(), rest, before) == (12, f"accepted after {FEWEST} images")


@pytest.mark.parametrize(
    "record",
    [
        _record(sampling=Sampling(fixed=200)),
        _record(
            gating.load().model_copy(
                update={
                    "agreement": gating.load().agreement.model_copy(update={"decide_on": "point"})
                }
            )
        ),
        run_record((PHONE,), [phone_record(SERIAL)]),
    ],
    ids=["fixed number", "decides on its share", "nothing to compare with"],
)
def test_other_runs_go_on_to_their_last_image(record: RunRecord) -> None:
    assert watch(record, PHONE, SERIAL, []) is None
