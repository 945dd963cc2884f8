"""How a runner ended that did not finish: by which signal, for want of what, and whether to try
again.

What its shell saw of it, the phone's log, its storage and the boot id decide; `fault` is pure.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass

from driftloop.devices.runner.protocol import Heartbeat, RunnerFault

PASSING = ("killed", "rebooted", "damaged")
"""Kinds of a fault that may not come again when the same work is started once more. The others:
crashed, storage, died (by its own exit code), hung (no sign of life), stuck (no result)."""

_FROM_OUTSIDE = (signal.SIGHUP, signal.SIGKILL, signal.SIGTERM)
_NOT_STARTED = (126, 127)
_FULL_BYTES = 64 * 1024
"""With less, neither an answer nor a sign of life can be written."""
_MEMORY_KILLER = re.compile(
    r"(?=.*\bkill)(?=.*(?:lowmemorykiller|\blmkd\b|out of memory|\boom))", re.IGNORECASE
)
_TICKS_PER_S = 100


@dataclass(frozen=True)
class Scene:
    """What the phone says after a runner's end."""

    status: int | None
    """As a shell gives it, 128 and the signal's number for one that a signal ended; None where the
    runner's shell ended with it, or could not write it."""
    rebooted: bool
    free_bytes: int | None
    memory: str
    """How much is available now; empty where the phone does not say."""
    killer: str
    """The line of the phone's log by which its low-memory killer says that it was the runner."""
    words: str
    """The runner's last output."""

    @classmethod
    def of(
        cls,
        status: str,
        boots: tuple[str, str],
        free_bytes: int | None,
        meminfo: str,
        log: str,
        words: str,
    ) -> Scene:
        """From what the commands of `Attempt.scene` print; `boots`: of the start, and now."""
        then, now = (boot.strip() for boot in boots)
        return cls(
            status=int(status) if re.fullmatch(r"\d{1,3}\s*", status) else None,
            rebooted=bool(then and now) and then != now,
            free_bytes=free_bytes,
            memory=_memory(meminfo),
            killer=next(filter(_MEMORY_KILLER.search, log.splitlines()), "").strip(),
            words=words,
        )

    @property
    def is_full(self) -> bool:
        """Whether nothing can be written any more."""
        return "No space left" in self.words or (
            self.free_bytes is not None and self.free_bytes < _FULL_BYTES
        )


def fault(scene: Scene, heartbeat: Heartbeat | None, misfit: Callable[[], str]) -> RunnerFault:
    """The fault of a process that ended without a word of its own.

    `misfit` says how its program fits the CPU; asked only after an illegal instruction.
    """
    where = f"in stage {heartbeat.stage}" if heartbeat else "at once"
    if heartbeat and heartbeat.image >= 0:
        where += f" of image {heartbeat.image}"
    status = scene.status
    words = f"; its last output: {scene.words}" if scene.words else ""
    if scene.rebooted:
        return RunnerFault(kind="rebooted", detail=f"the phone was restarted {where}")
    if scene.is_full:
        return RunnerFault(kind="storage", detail=f"it ended {where}; {full(scene)}")
    if status is None:
        detail = f"it was ended {where} together with the shell that watched it"
        return RunnerFault(kind="killed", detail=f"{detail}; {_by_whom(scene)}")
    if status in _NOT_STARTED:
        return RunnerFault(kind="died", detail=f"it could not be started{words}")
    if status <= 128:
        return RunnerFault(kind="died", detail=f"it ended with exit code {status} {where}{words}")
    try:
        number = signal.Signals(status - 128)
    except ValueError:
        return RunnerFault(kind="died", detail=f"it ended by signal {status - 128} {where}{words}")
    if number in _FROM_OUTSIDE:
        detail = f"{number.name} ended it {where}; {_by_whom(scene)}"
        return RunnerFault(kind="killed", detail=detail)
    why = f" (an illegal instruction: {misfit()})" if number == signal.SIGILL else ""
    return RunnerFault(kind="crashed", detail=f"{number.name}{why} ended it {where}{words}")


def full(scene: Scene) -> str:
    """That the storage is full, and what to do."""
    free = f" ({scene.free_bytes // 1024} KiB free)" if scene.free_bytes is not None else ""
    return f"the phone's storage is full{free}: free some storage and repeat the command"


def activity(before: str, after: str) -> str:
    """What a process does, by two readings of its /proc/PID/stat a second apart."""
    fields = [stat.rpartition(")")[2].split() for stat in (before, after)]
    if any(len(one) < 13 for one in fields):
        return "its process is gone"
    then, now = (int(one[11]) + int(one[12]) for one in fields)
    if fields[1][0] in "Tt":
        return "its process is stopped"
    if now > then:
        return f"its process computes ({(now - then) / _TICKS_PER_S:.2f} s of CPU in a second)"
    return f"its process waits (state {fields[1][0]}) and uses no CPU"


def _by_whom(scene: Scene) -> str:
    memory = f"; {scene.memory}" if scene.memory else ""
    if scene.killer:
        return f"the phone ran out of memory, its log says: {scene.killer}{memory}"
    return f"the phone's log does not name who did it{memory}"


def _memory(meminfo: str) -> str:
    kib = dict(re.findall(r"^(MemTotal|MemAvailable):\s{1,20}(\d{1,12}) kB", meminfo, re.MULTILINE))
    if len(kib) < 2:
        return ""
    available, total = (int(kib[key]) // 1024 for key in ("MemAvailable", "MemTotal"))
    return f"{available} of {total} MiB of memory are available now"
