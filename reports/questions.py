"""A release's questions, each with its outcome and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.comparison.hop import Share
from harness.judgement.gate import Outcome
from reports.wording import count

MAX_LINES: Final = 3
"""Of one answer: what fits on a first screen."""


@dataclass(frozen=True)
class EndToEnd:
    """The top of the ladder against the lowest arm: in how many cases the answer is the same."""

    reference: str
    arm: str
    phone: str | None
    same: Share
    sessions: Share
    """Of the whole sessions, those with the same words."""


@dataclass(frozen=True)
class Answer:
    """One question, its outcome and the answer, a sentence a line."""

    question: str
    outcome: Outcome
    lines: tuple[str, ...]
    more: str | None = None
    """The id of the page's section that shows the evidence."""


def few(lines: Sequence[str], what: str) -> tuple[str, ...]:
    """The first lines; more than fit are counted, as so many more of `what`."""
    if len(lines) <= MAX_LINES:
        return tuple(lines)
    return (*lines[: MAX_LINES - 1], f"And {count(len(lines) - MAX_LINES + 1, f'more {what}')}.")
