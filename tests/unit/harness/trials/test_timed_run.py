"""Which runs count, and which are left out."""

from __future__ import annotations

from typing import Any

import pytest

from driftloop.harness.trials.plan import Step
from driftloop.harness.trials.record import Reading
from driftloop.harness.trials.timed_run import Measured, as_run, exclusion
from tests.unit.harness.trials.trial_factory import COOL, attestation, run


def measured(**over: object) -> Measured:
    content: dict[str, Any] = {
        "images": [],
        "attestations": [attestation()],
        "before": COOL,
        "after": COOL,
        "losses": 0,
        "fault": None,
    }
    return Measured(**(content | over))


def like_cool(**over: object) -> Reading:
    return COOL.model_copy(update=over)


def test_a_run_like_those_before_it_counts() -> None:
    assert exclusion(measured(), []) is None
    assert exclusion(measured(), [run()]) is None


@pytest.mark.parametrize(
    ("over", "why", "detail"),
    [
        ({"fault": "a signal ended it"}, "runner", "a signal ended it"),
        ({"before": like_cool(throttled=True)}, "throttled", "before it"),
        ({"after": like_cool(throttled=True)}, "throttled", "at its end"),
        ({"after": like_cool(boot_id="next")}, "rebooted", "the phone was restarted"),
        ({"losses": 2}, "interrupted", "the connection was lost 2 times"),
        (
            {"attestations": [attestation(), attestation(pid=2)]},
            "interrupted",
            "2 processes of the runner took part",
        ),
        ({"after": like_cool(power_source="none")}, "power", "none and not usb"),
        (
            {"attestations": [attestation(threads=2)]},
            "threads",
            "2 threads (4 for vision) and not 4 threads (4 for vision)",
        ),
    ],
)
def test_a_run_unlike_those_before_it_is_left_out_and_says_why(
    over: dict[str, object], why: str, detail: str
) -> None:
    found = exclusion(measured(**over), [run()])
    assert found is not None
    assert found[0] == why
    assert found[1].startswith(detail)


def test_a_trial_may_run_on_battery_from_its_start() -> None:
    unplugged = like_cool(power_source="none")
    assert exclusion(measured(before=unplugged, after=unplugged), []) is None


def test_a_run_that_ended_before_it_began_is_kept_as_left_out() -> None:
    kept = as_run(
        measured(attestations=[], fault="it ended at once"),
        number=4,
        step=Step("trial", "candidate", 2, 8),
        earlier=[run()],
    )
    assert (kept.number, kept.contender, kept.excluded) == (4, "candidate", "runner")
    assert kept.images_ms == ()
    assert kept.attestation is None


def test_what_a_run_left_out_was_like_is_no_measure_for_the_next() -> None:
    unplugged = run(excluded="power", before=like_cool(power_source="none"))
    kept = as_run(measured(), 2, Step("trial", "baseline", 1, 8), [unplugged, run(1)])
    assert kept.excluded is None
