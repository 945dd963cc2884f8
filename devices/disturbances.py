"""What kept a phone from answering, though it changed no answer: counted and reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

_MOST_REMARKS = 50


@dataclass
class Disturbances:
    """Of one phone, since this process first used it."""

    link_breaks: int = 0
    """How often the connection was lost and had to be made again."""
    waited_s: float = 0.0
    """How long the phone was waited for, until it was back."""
    starts: int = 0
    """How often a runner was started."""
    remarks: list[str] = field(default_factory=list)
    """One line each, in the order in which they were found."""
    say: Callable[[str], None] = lambda _line: None
    """Gets each remark as it is found."""

    def remark(self, line: str) -> None:
        """Keep and say `line`; once, however often it is found again, and no endless number."""
        if len(self.remarks) >= _MOST_REMARKS:
            line = "more than that is wrong with what the phone says"
        if line not in self.remarks:
            self.remarks.append(line)
            self.say(line)
