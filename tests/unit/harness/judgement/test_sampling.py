"""How many images decide: as planned, and as a run goes on."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import pytest

from driftloop.harness import gates_file
from driftloop.harness.gates_file import Gates
from driftloop.harness.judgement.sampling import Needed, sampling_plan
from driftloop.harness.records.observation import Observation
from driftloop.harness.records.record import RunRecord, Sampling
from driftloop.harness.stats.sequential import Decision

from ..run_factory import (
    case_records,
    fault,
    flipped,
    floor,
    observation,
    observations,
    phone_record,
    run_record,
)

GATES = gates_file.load()


def test_the_sequential_plan_says_its_errors_and_what_it_costs() -> None:
    plan = sampling_plan(GATES, ("platform",), 3, None)
    assert plan.sentence == (
        "a sequential test, looked at every 3 images: fails a release that agrees in 0.98 with "
        "probability 0.050, passes one that agrees in 0.94 with probability 0.050; takes 72 images "
        "where none flips, 144 on average at 0.98, 113 at 0.94, 342 at most"
    )


@pytest.mark.parametrize(("images", "clean"), [(259, 259), (49, 49), (48, None)])
def test_a_fixed_plan_says_whether_so_few_images_can_pass(images: int, clean: int | None) -> None:
    plan = sampling_plan(GATES, ("platform",), 3, images)
    assert (plan.kind, plan.most, plan.clean) == ("fixed", images, clean)
    assert f"a fixed sample of {images} images" in plan.sentence


ARMS = ("desktop:q8_0+app", "phone:q8_0+app")
REFERENCE, PHONE = ARMS
SERIAL = "PHONE1"
ON_PHONE = (PHONE, SERIAL)
CASES = 342
FEWEST = 72
"""Images without a flip that the default plan accepts after."""


def record(gates: Gates | None = None, **over: object) -> RunRecord:
    content = {"cases": case_records(CASES)} | over
    return run_record(ARMS, [phone_record(SERIAL)], gates, **content)


def decided(answers: Iterable[Observation]) -> Decision | None:
    """The decision of a run whose reference has answered every case."""
    return Needed(record(), (), chain(observations(REFERENCE, CASES), answers)).decision(ON_PHONE)


def test_as_many_images_are_wanted_as_decide_where_none_flips() -> None:
    needed = Needed(record(), ())
    assert needed.wanted(ON_PHONE) == needed.wanted((REFERENCE, None)) == FEWEST
    assert decided(observations(PHONE, FEWEST - 1, SERIAL)) is None
    assert decided(observations(PHONE, FEWEST, SERIAL)) == Decision("accept", FEWEST, 0)
    assert decided(observations(PHONE, 100, SERIAL)) == Decision("accept", FEWEST, 0)


def test_whose_hops_are_all_decided_is_wanted_no_more() -> None:
    ladder = ("desktop:q8_0", *ARMS)
    seen = observations(REFERENCE, FEWEST) + observations(PHONE, FEWEST, SERIAL)
    run = run_record(ladder, [phone_record(SERIAL)], cases=case_records(CASES))
    needed = Needed(run, (), seen)
    assert needed.wanted(ON_PHONE) == 0
    assert needed.decision(ON_PHONE) is not None
    assert needed.wanted((REFERENCE, None)) == FEWEST, "its other hop is open"
    assert needed.decision((REFERENCE, None)) is None
    assert needed.partners((REFERENCE, None)) == [("desktop:q8_0", None)]


def test_flips_ask_for_more_images_and_enough_of_them_end_it() -> None:
    seen = [flipped(PHONE, index, SERIAL) if index == 5 else observation(PHONE, index, SERIAL)
            for index in range(FEWEST)]  # fmt: skip
    needed = Needed(record(), (), [*observations(REFERENCE, CASES), *seen])
    assert needed.decision(ON_PHONE) is None
    assert FEWEST < needed.wanted(ON_PHONE) <= FEWEST + 30
    assert needed.wanted(ON_PHONE) % 3 == 0
    rejected = decided(flipped(PHONE, index, SERIAL) for index in range(CASES))
    assert rejected is not None
    assert rejected.outcome == "reject"
    assert rejected.images < 20


def test_flips_within_the_floor_ask_for_no_more() -> None:
    close = {"label_logprobs": {"water": -0.69, "fire": -0.70}}
    reference = observations(REFERENCE, FEWEST, **close)
    phone = [flipped(PHONE, index, SERIAL, **close) for index in range(FEWEST)]
    assert Needed(record(), [floor(REFERENCE)], [*reference, *phone]).wanted(ON_PHONE) == 0


def test_pairs_count_in_the_order_of_the_run_however_they_come_in() -> None:
    early = [flipped(PHONE, index, SERIAL) for index in range(12)]
    late = observations(PHONE, CASES, SERIAL)[12:]
    assert decided([*late, *early]) == decided([*early, *late])
    assert decided(late) is None, "nothing counts before the first session is there"


def test_neither_errors_nor_canaries_decide() -> None:
    mute = [observation(PHONE, index, SERIAL, error=fault()) for index in range(3)]
    rest = observations(PHONE, FEWEST + 2, SERIAL)[3:]
    needed = Needed(record(), (), [*observations(REFERENCE, CASES), *mute, *rest])
    assert needed.decision(ON_PHONE) is None
    assert needed.wanted(ON_PHONE) == FEWEST + 3
    assert decided(observations(PHONE, CASES, SERIAL, canary="twice")) is None


def test_no_more_is_wanted_than_there_is() -> None:
    assert Needed(record(cases=case_records(24)), ()).wanted(ON_PHONE) == 24


@pytest.mark.parametrize(
    "every",
    [
        record(sampling=Sampling(fixed=CASES)),
        run_record((PHONE,), [phone_record(SERIAL)], cases=case_records(CASES)),
    ],
    ids=["fixed number", "nothing to compare with"],
)
def test_other_runs_go_on_to_their_last_image(every: RunRecord) -> None:
    needed = Needed(every, (), [*observations(REFERENCE, 100), *observations(PHONE, 100, SERIAL)])
    assert needed.wanted(ON_PHONE) == CASES
    assert needed.decision(ON_PHONE) is None
