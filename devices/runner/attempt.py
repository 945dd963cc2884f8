"""One start of the runner on a phone: its folder, its process, and what it has written so far.

A run's folder is `runs/<run id>/<hash of its settings>/`, and each start has a numbered one in it.
Files of another start are never appended to, so a line torn by a crash stays the last of its file.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pydantic import ValidationError

from devices.phone import REMOTE_ROOT, Phone, RemoteProcess
from devices.runner.protocol import (
    LINE,
    Attestation,
    Finished,
    Heartbeat,
    ImageResult,
    Request,
)

REMOTE_RUNS = f"{REMOTE_ROOT}/runs"
_CUT = "@@driftloop"
_LOG_LINES = 5


@dataclass(frozen=True)
class Look:
    """What one look at an attempt saw. `alive` was true before `lines` were read."""

    alive: bool
    heartbeat: Heartbeat | None
    lines: list[Attestation | ImageResult | Finished]
    offset: int
    """Bytes of the results file that are read: whole lines only."""


@dataclass(frozen=True)
class Attempt:
    """One numbered folder of a run on a phone."""

    phone: Phone
    folder: str

    @property
    def request_path(self) -> str:
        return f"{self.folder}/request.json"

    @property
    def tensors_folder(self) -> str:
        """Where deep mode puts each image's tensors."""
        return f"{self.folder}/tensors"

    def prepare(self, request: Request) -> None:
        """Make the folder and push the request; may be repeated before `start`."""
        self.phone.shell(f"mkdir -p {shlex.quote(self.folder)}")
        self.phone.push_bytes(request.model_dump_json().encode(), self.request_path)

    def start(self, program: str) -> RemoteProcess:
        """Start the runner so that it outlives the connection."""
        arguments = [self.request_path, self._results_path, f"{self.folder}/heartbeat.json"]
        return self.phone.spawn([program, *arguments], log=self._log_path)

    def process(self) -> RemoteProcess | None:
        """The runner of this attempt if it still runs, whoever started it."""
        return next(iter(_processes(self.phone, self.request_path)), None)

    def look(self, process: RemoteProcess | None, offset: int) -> Look:
        """Whether `process` lives, its heartbeat, and what it wrote from byte `offset` on.

        In this order: of a process that has ended, everything it wrote is read.
        """
        stat = f"cat /proc/{process.pid}/stat 2>/dev/null" if process else "true"
        printed = self.phone.shell(
            f"{stat}; echo {_CUT}; cat {shlex.quote(self.folder)}/heartbeat.json 2>/dev/null; "
            f"echo {_CUT}; tail -c +{offset + 1} {shlex.quote(self._results_path)} 2>/dev/null",
            check=False,
        ).stdout
        stat_line, heartbeat, results = printed.split(f"{_CUT}\n", 2)
        whole = results[: results.rfind("\n") + 1]
        return Look(
            alive=process is not None and _process_of(stat_line) == process,
            heartbeat=_heartbeat(heartbeat),
            lines=[LINE.validate_json(line) for line in whole.splitlines()],
            offset=offset + len(whole),
        )

    def last_words(self) -> str:
        """The end of what the runner printed, as one line; empty if it printed nothing."""
        log = shlex.quote(self._log_path)
        printed = self.phone.shell(f"tail -n {_LOG_LINES} {log}", check=False).stdout
        return " | ".join(line.strip() for line in printed.splitlines() if line.strip())

    @property
    def _results_path(self) -> str:
        return f"{self.folder}/results.jsonl"

    @property
    def _log_path(self) -> str:
        return f"{self.folder}/log.txt"


def attempts(phone: Phone, run_folder: str) -> list[Attempt]:
    """The attempts of a run in their order; none of them need be alive."""
    printed = phone.shell(f"ls {shlex.quote(run_folder)} 2>/dev/null", check=False).stdout
    return [Attempt(phone, f"{run_folder}/{name}") for name in sorted(printed.split())]


def end_all(phone: Phone, *, below: str = REMOTE_RUNS, but: str | None = None) -> int:
    """End every runner whose request lies below a folder, except below `but`; how many."""
    spared = set(_processes(phone, f"{but}/", whole=False)) if but else set()
    doomed = [found for found in _processes(phone, f"{below}/", whole=False) if found not in spared]
    for process in doomed:
        phone.kill(process)
    return len(doomed)


def _processes(phone: Phone, argument: str, *, whole: bool = True) -> list[RemoteProcess]:
    """Processes with an argument that is, or begins with, `argument`: an absolute path.

    The shell that searches has the pattern itself among its arguments, which the bracket keeps
    from matching; the shell that starts a runner has the path within a longer one.
    """
    pattern = shlex.quote("[/]" + argument[1:].replace(".", "[.]"))
    exact = shlex.quote("^[/]" + argument[1:].replace(".", "[.]") + ("$" if whole else ""))
    command = (
        f"for file in $(grep -la {pattern} /proc/[0-9]*/cmdline 2>/dev/null); do "
        f"if tr '\\0' '\\n' <$file | grep -q {exact}; then "
        f"cat ${{file%cmdline}}stat; fi; done 2>/dev/null"
    )
    found = (_process_of(line) for line in phone.shell(command, check=False).stdout.splitlines())
    return [process for process in found if process is not None]


def _process_of(stat: str) -> RemoteProcess | None:
    """Who a line of /proc/PID/stat is about; None for one that has ended (state Z or X)."""
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in "ZX":
        return None
    return RemoteProcess(pid=int(stat.split(maxsplit=1)[0]), start_time=int(fields[19]))


def _heartbeat(text: str) -> Heartbeat | None:
    """None before the first beat."""
    try:
        return Heartbeat.model_validate_json(text)
    except ValidationError:
        return None
