"""The sessions of a run, every arm's words side by side, with what they foretell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness import fortune
from harness.records.session_results import SessionResult

_NAMED = 5


@dataclass(frozen=True)
class SessionView:
    """One session; `session` counts from 0."""

    session: int
    results: tuple[SessionResult, ...]
    """In the ladder's order."""

    @property
    def differs(self) -> bool:
        """Whether two arms said different words, or one failed. What was not run says nothing."""
        run = [one for one in self.results if one.state != "not run"]
        return len({one.words for one in run}) > 1 or any(one.state == "error" for one in run)

    @property
    def readings(self) -> tuple[fortune.Reading, ...]:
        """Every distinct one, in the order in which the arms tell them."""
        keys = dict.fromkeys(one.reading for one in self.results if one.reading is not None)
        return tuple(fortune.read(key.split("-")) for key in keys)

    @property
    def speaker(self) -> SessionResult:
        """The first arm that ran the session; the first of all where none did."""
        return next((one for one in self.results if one.state != "not run"), self.results[0])

    @property
    def least_sure(self) -> SessionResult | None:
        """The arm with the lowest confidence; None where none is known."""
        known = [one for one in self.results if one.confidence is not None]
        return min(known, key=lambda one: one.confidence or 0.0, default=None)


def session_views(results: Iterable[SessionResult]) -> tuple[SessionView, ...]:
    """In the order of the run."""
    by_session: dict[int, list[SessionResult]] = {}
    for one in results:
        by_session.setdefault(one.session, []).append(one)
    return tuple(SessionView(session, tuple(some)) for session, some in by_session.items())


def sentence(views: Sequence[SessionView]) -> str:
    """In how many sessions the arms agree, and what the first few others read."""
    differing = [view for view in views if view.differs]
    same = f"every arm says the same words in {len(views) - len(differing)} of {len(views)}"
    named = [_named(view) for view in differing[:_NAMED]]
    if len(differing) > _NAMED:
        named.append(f"{len(differing) - _NAMED} more")
    return f"{same}, not in {'; '.join(named)}." if named else f"{same}."


def _named(view: SessionView) -> str:
    readings = " or ".join(reading.key for reading in view.readings)
    return f"session {view.session + 1}{f' ({readings})' if readings else ''}"
