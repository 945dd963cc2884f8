"""Whose turn it is: arms advance side by side in blocks of sessions, until their hops are decided.

An arm on this host answers one block at a time, the arms one after another. A phone is given all
that its test can need at once and runs on its own; arms on this host stay one block ahead of the
fastest of the phones that still need them. A slow phone holds nobody up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition
from typing import Final

from harness.judgement.needed import Needed
from harness.ladder import ArmSpec
from harness.records.inquiry import Floor
from harness.records.journal import Journal
from harness.records.observation import Observation, Who
from harness.records.record import CaseRecord, Stop

BLOCK_SESSIONS: Final = 4


@dataclass(frozen=True)
class Turn:
    """What an arm is to answer next, its canaries among them."""

    spec: ArmSpec
    cases: tuple[CaseRecord, ...]


class Pace:
    """Gives turns to arms on this host and to phones; each phone asks in a thread of its own."""

    def __init__(
        self,
        journal: Journal,
        specs: Sequence[ArmSpec],
        serials: Sequence[str],
        stop: Callable[[ArmSpec, str], None],
    ) -> None:
        """`specs`: the arms that take part. `stop`: tells a phone to begin no further case."""
        self._journal = journal
        self._host = [spec for spec in specs if spec.on_host]
        self._mobile = [spec for spec in specs if not spec.on_host]
        self._stop = stop
        self._serials = tuple(serials)
        self._live: set[Who] = {(spec.name, None) for spec in self._host}
        self._live |= {(spec.name, serial) for spec in self._mobile for serial in serials}
        self._places = sorted((case.session, case.position) for case in journal.current.cases)
        self._answered = Counter(
            (seen.arm, seen.phone) for seen in journal.read() if seen.canary is None
        )
        self._news = Condition()
        self._ended = False
        self._leading = {
            hop.reference
            for hop in journal.current.hops
            if hop.phone is not None and hop.reference_phone is None
        }
        """Arms on this host that phones are compared with."""
        self.weigh(journal.inquiry().floors)

    def weigh(self, floors: Sequence[Floor]) -> None:
        """Tell numeric flips from real ones by these floors, in what there is and what comes."""
        with self._news:
            self._needed = Needed(self._journal.current, floors, self._journal.read())
            self._heed_decisions()
            self._news.notify_all()

    def saw(self, seen: Observation) -> None:
        """Keep an observation in the journal, and end what it decides."""
        with self._news:
            self._journal.append(seen)
            self._needed.saw(seen)
            self._answered[seen.arm, seen.phone] += seen.canary is None
            self._heed_decisions()
            self._news.notify_all()

    def gone(self, who: Who) -> None:
        """This arm can answer no more; nobody waits for it."""
        with self._news:
            self._live.discard(who)
            self._news.notify_all()

    def end(self) -> None:
        """Nobody gets another turn."""
        with self._news:
            self._ended = True
            self._news.notify_all()

    def course(self, who: Who) -> tuple[int, int]:
        """Cases that this arm has answered, of how many as things stand."""
        with self._news:
            answered = self._answered[who]
            return answered, answered + len(self._todo(who))

    def host_turn(self) -> Turn | None:
        """The next block of an arm on this host, as soon as there is one; None at the end."""
        with self._news:
            while not self._ended:
                if (turn := self._next_block() or self._host_canaries()) is not None:
                    return turn
                if not self._pacing():
                    break
                self._news.wait()
            return None

    def phone_turn(self, serial: str) -> Turn | None:
        """What that phone is to answer next, as soon as there is something; None at the end."""
        with self._news:
            while not self._ended:
                arms = [(spec, (spec.name, serial)) for spec in self._mobile]
                waiting = any(self._waits(who) for _, who in arms)
                for spec, who in arms:
                    cases = self._todo(who)
                    if cases or not waiting:
                        cases += self._canaries(who)
                    if cases:
                        return Turn(spec, tuple(cases))
                if not waiting:
                    break
                self._news.wait()
            return None

    def _next_block(self) -> Turn | None:
        """The earliest block that is missing; of one block, first what phones are compared with."""
        todo = {spec: self._todo((spec.name, None)) for spec in self._host}
        blocks = {spec: _block(cases[0]) for spec, cases in todo.items() if cases}
        if not blocks:
            return None
        spec = min(blocks, key=lambda one: (blocks[one], one.name not in self._leading))
        if (pacing := self._pacing()) and blocks[spec] > max(map(self._reached, pacing)) + 1:
            return None
        return Turn(spec, tuple(case for case in todo[spec] if _block(case) == blocks[spec]))

    def _host_canaries(self) -> Turn | None:
        """When no block is to be answered now."""
        for spec in self._host:
            if canaries := self._canaries((spec.name, None)):
                return Turn(spec, tuple(canaries))
        return None

    def _pacing(self) -> list[Who]:
        """The phones that are still undecided and can go on."""
        phones = [(spec.name, serial) for serial in self._serials for spec in self._mobile]
        return [who for who in phones if self._todo(who) or self._waits(who)]

    def _reached(self, who: Who) -> int:
        """The block in which that phone stands."""
        if todo := self._todo(who):
            return _block(todo[0])
        session, _ = self._places[min(self._needed.wanted(who), len(self._places) - 1)]
        return session // BLOCK_SESSIONS

    def _waits(self, who: Who) -> bool:
        """Whether an arm that it is compared with still has to answer."""
        return who in self._live and any(self._todo(one) for one in self._needed.partners(who))

    def _todo(self, who: Who) -> list[CaseRecord]:
        """The cases that it must still answer, as things stand."""
        if who not in self._live:
            return []
        wanted = set(self._places[: self._needed.wanted(who)])
        return [
            case
            for case in self._journal.missing(*who)
            if case.canary is None and (case.session, case.position) in wanted
        ]

    def _canaries(self, who: Who) -> list[CaseRecord]:
        if who not in self._live:
            return []
        return [case for case in self._journal.missing(*who) if case.canary is not None]

    def _heed_decisions(self) -> None:
        """A phone whose hops are decided begins no further case, and that is kept."""
        stopped = {(one.arm, one.phone) for one in self._journal.current.stops}
        for serial in self._serials:
            for spec in self._mobile:
                who = (spec.name, serial)
                decision = self._needed.decision(who)
                if who in stopped or decision is None:
                    continue
                images = self._answered[who]
                if images < len(self._places):
                    why = f"{decision.outcome}ed after {decision.images} images"
                    self._journal.stop(Stop(arm=spec.name, phone=serial, images=images, why=why))
                    self._stop(spec, serial)


def _block(case: CaseRecord) -> int:
    return case.session // BLOCK_SESSIONS
