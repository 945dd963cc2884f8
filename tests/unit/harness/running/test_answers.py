"""Arms advance side by side: who waits for whom, who does not, and where they stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from driftloop.harness import ladder
from driftloop.harness.ladder import ArmSpec, Who
from driftloop.harness.records.journal import Journal
from driftloop.harness.records.observation import Observation
from driftloop.harness.records.record import CaseRecord, RunRecord
from driftloop.harness.running.answers import Pace, Turn

from ..run_factory import case_records, flipped, observation, phone_record, run_record

ARMS = ("torch", "desktop:q8_0+app", "phone:q8_0+app")
TORCH, DESKTOP, PHONE = ARMS
CASES = 342
FEWEST = 72
BLOCK = 12
"""Images of four sessions."""
CANARY = CaseRecord(
    id="black", path="", label=None, session=CASES // 3, position=0, pixels_sha256="0" * 64,
    canary="black",
)  # fmt: skip
PATIENCE_S = 30

Answers = Callable[[Who, int], Observation]


def agreeing(who: Who, index: int) -> Observation:
    return observation(who[0], index, who[1])


class Course:
    """A run of which the arms answer at once, when the test lets them."""

    def __init__(self, folder: Path, serials: tuple[str, ...], answers: Answers = agreeing) -> None:
        self.record: RunRecord = run_record(
            ARMS if serials else ARMS[:2],
            [phone_record(serial) for serial in serials],
            cases=case_records(CASES),
            canaries=(CANARY,),
        )
        self.folder, self.serials, self.answers = folder, serials, answers
        self.stopped: list[tuple[str, str]] = []

    @contextmanager
    def going(self) -> Iterator[Pace]:
        with Journal(self.folder, self.record) as journal:

            def stop(spec: ArmSpec, serial: str) -> None:
                self.stopped.append((spec.name, serial))

            yield Pace(journal, ladder.parse_ladder(self.record.arms), self.serials, stop)

    def host(self, pace: Pace) -> None:
        while (turn := pace.host_turn()) is not None:
            self.answer(pace, turn, None)

    def phone(self, pace: Pace, serial: str) -> None:
        while (turn := pace.phone_turn(serial)) is not None:
            self.answer(pace, turn, serial)

    def answer(self, pace: Pace, turn: Turn, serial: str | None, most: int = CASES) -> None:
        """A phone that is told to stop begins no further case."""
        who = (turn.spec.name, serial)
        for case in turn.cases[:most]:
            if case.canary is not None:
                pace.saw(observation(*who[:1], CASES, serial, canary="black", case_id="black"))
            elif who not in self.stopped:
                pace.saw(self.answers(who, case.session * 3 + case.position))

    def seen(self) -> Counter[Who]:
        """Cases that each arm has answered, its canaries left out."""
        with Journal(self.folder, self.record) as journal:
            return Counter(one.who for one in journal.read() if one.canary is None)


def started(target: Callable[..., None], *args: object) -> Thread:
    thread = Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def ended(*threads: Thread) -> None:
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def whole(course: Course) -> Counter[Who]:
    """The run to its end, every arm in a thread of its own."""
    with course.going() as pace:
        phones = [started(course.phone, pace, serial) for serial in course.serials]
        ended(started(course.host, pace), *phones)
    return course.seen()


@pytest.mark.parametrize("serials", [("A", "B"), ()])
def test_where_nothing_flips_every_arm_answers_the_fewest_images(
    tmp_path: Path, serials: tuple[str, ...]
) -> None:
    arms = {(TORCH, None), (DESKTOP, None), *((PHONE, serial) for serial in serials)}
    assert whole(Course(tmp_path, serials)) == dict.fromkeys(arms, FEWEST)


def test_the_host_stays_one_block_ahead_of_the_fastest_phone(tmp_path: Path) -> None:
    course = Course(tmp_path, ("slow", "fast"))
    with course.going() as pace:
        host = started(course.host, pace)
        host.join(0.5)
        assert host.is_alive(), "it waits for a phone"
        assert pace.course((DESKTOP, None)) == (2 * BLOCK, FEWEST)
        assert pace.course((TORCH, None)) == (2 * BLOCK, FEWEST)
        turn = pace.phone_turn("fast")
        assert turn is not None
        course.answer(pace, turn, "fast", BLOCK)
        host.join(0.5)
        assert pace.course((DESKTOP, None)) == (3 * BLOCK, FEWEST)
        course.phone(pace, "fast")
        host.join(0.5)
        assert pace.course((DESKTOP, None)) == (FEWEST, FEWEST), "the slow one holds nobody up"
        course.phone(pace, "slow")
        ended(host)


def test_of_a_block_what_phones_are_compared_with_is_answered_first(tmp_path: Path) -> None:
    course = Course(tmp_path, ("A",))
    with course.going() as pace:
        order = []
        for _ in range(4):
            turn = pace.host_turn()
            assert turn is not None
            order.append((turn.spec.name, turn.cases[0].session))
            course.answer(pace, turn, None)
    assert order == [(DESKTOP, 0), (TORCH, 0), (DESKTOP, 4), (TORCH, 4)]


def test_a_phone_whose_every_answer_flips_ends_soon_and_the_host_with_it(tmp_path: Path) -> None:
    def answers(who: Who, index: int) -> Observation:
        return flipped(who[0], index, who[1]) if who[1] else agreeing(who, index)

    course = Course(tmp_path, ("A",), answers)
    with course.going() as pace:
        host = started(course.host, pace)
        host.join(0.5)
        course.phone(pace, "A")
        ended(host)
        assert course.stopped == [(PHONE, "A")]
    seen = course.seen()
    assert seen[PHONE, "A"] < 30
    # The hop above is not decided by what the phone says.
    assert seen[DESKTOP, None] == seen[TORCH, None] == FEWEST
    with Journal(tmp_path, course.record) as journal:
        (stop,) = journal.current.stops
    assert stop.why.startswith("rejected after")


def test_an_answer_that_flips_asks_both_of_its_arms_for_more(tmp_path: Path) -> None:
    def answers(who: Who, index: int) -> Observation:
        flips = who[1] is not None and index == 5
        return flipped(who[0], index, who[1]) if flips else agreeing(who, index)

    seen = whole(Course(tmp_path, ("A",), answers))
    assert seen[TORCH, None] == FEWEST
    assert FEWEST < seen[DESKTOP, None] == seen[PHONE, "A"] <= FEWEST + 30


@pytest.mark.parametrize("lost", [(DESKTOP, None), (PHONE, "A")])
def test_nobody_waits_for_an_arm_that_is_gone(tmp_path: Path, lost: Who) -> None:
    course = Course(tmp_path, ("A",))
    with course.going() as pace:
        pace.gone(lost)
        ended(started(course.host, pace), started(course.phone, pace, "A"))
    seen = course.seen()
    assert lost not in seen
    assert set(seen.values()) == {FEWEST}


def test_a_run_that_is_taken_up_again_stops_where_it_would_have(tmp_path: Path) -> None:
    course = Course(tmp_path, ("A",))
    with course.going() as pace:
        for _ in range(3):
            turn = pace.host_turn()
            assert turn is not None
            course.answer(pace, turn, None)
        turn = pace.phone_turn("A")
        assert turn is not None
        course.answer(pace, turn, "A", 7)
    assert set(whole(course).values()) == {FEWEST}
    before = (tmp_path / "observations.jsonl").read_bytes()
    whole(course)
    assert (tmp_path / "observations.jsonl").read_bytes() == before


def test_canaries_are_run_once_by_the_arms_that_carry_them(tmp_path: Path) -> None:
    course = Course(tmp_path, ("A",))
    whole(course)
    with Journal(tmp_path, course.record) as journal:
        carriers = [one.who for one in journal.read() if one.canary is not None]
    assert sorted(carriers, key=str) == [(DESKTOP, None), (PHONE, "A")]
