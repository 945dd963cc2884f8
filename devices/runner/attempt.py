"""One start of the runner on a phone: its folder, its process, and what it has written so far.

A run's folder is `runs/<run id>/<hash of its settings>/`, and each start has a numbered one in it.
Files of another start are never appended to, so a line torn by a crash stays the last of its file.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pydantic import ValidationError

from driftloop.devices.phone import REMOTE_ROOT, Phone, RemoteProcess
from driftloop.devices.runner.protocol import LINE, Heartbeat, Line, Request

REMOTE_RUNS = f"{REMOTE_ROOT}/runs"
_LOG_LINES = 5


@dataclass(frozen=True)
class Poll:
    """What one poll of an attempt saw. `alive` was true before `lines` were read."""

    alive: bool
    heartbeat: Heartbeat | None
    """None before the first beat."""
    lines: list[Line]
    offset: int
    """Bytes of the results file that have been read: whole lines only."""


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
        self.phone.push(request.model_dump_json().encode(), self.request_path)

    def start(self, program: str) -> RemoteProcess:
        """Start the runner so that it outlives the connection."""
        outputs = (f"{self.folder}/results.jsonl", f"{self.folder}/heartbeat.json")
        return self.phone.spawn(
            [program, self.request_path, *outputs], log=f"{self.folder}/log.txt"
        )

    def process(self) -> RemoteProcess | None:
        """The runner of this attempt if it still runs, whoever started it."""
        return next(iter(_processes(self.phone, self.request_path)), None)

    def poll(self, process: RemoteProcess | None, offset: int) -> Poll:
        """Whether `process` lives, its heartbeat, and what it wrote from byte `offset` on.

        In this order, so that everything a process wrote before it ended is read.
        """
        folder = shlex.quote(self.folder)
        stat, heartbeat, results = self.phone.ask(
            f"cat /proc/{process.pid}/stat" if process else "true",
            f"cat {folder}/heartbeat.json",
            f"tail -c +{offset + 1} {folder}/results.jsonl",
        )
        whole = results[: results.rfind("\n") + 1]
        return Poll(
            alive=process is not None and RemoteProcess.living(stat) == process,
            heartbeat=_heartbeat(heartbeat),
            lines=[LINE.validate_json(line) for line in whole.splitlines()],
            offset=offset + len(whole),
        )

    def last_words(self) -> str:
        """The end of what the runner printed, as one line; empty if it printed nothing."""
        (printed,) = self.phone.ask(f"tail -n {_LOG_LINES} {shlex.quote(self.folder)}/log.txt")
        return " | ".join(line.strip() for line in printed.splitlines() if line.strip())


def attempts(phone: Phone, run_folder: str) -> list[Attempt]:
    """The attempts of a run in their order; none of them need be alive."""
    (printed,) = phone.ask(f"ls {shlex.quote(run_folder)}")
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
    pattern = "[/]" + argument[1:].replace(".", "[.]")
    exact = shlex.quote(f"^{pattern}{'$' if whole else ''}")
    (printed,) = phone.ask(
        f"for file in $(grep -la {shlex.quote(pattern)} /proc/[0-9]*/cmdline); do "
        f"if tr '\\0' '\\n' <$file | grep -q {exact}; then cat ${{file%cmdline}}stat; fi; done"
    )
    return [found for line in printed.splitlines() if (found := RemoteProcess.living(line))]


def _heartbeat(text: str) -> Heartbeat | None:
    try:
        return Heartbeat.model_validate_json(text)
    except ValidationError:
        return None
