"""One start of the runner on a phone: its folder, its process, and what it has written so far.

A run's folder is `runs/<run id>/<hash of its settings>/`, and each start has a numbered one in it.
Files of another start are never appended to, so a line torn by a crash stays the last of its file.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from pydantic import ValidationError

from driftloop.devices.identity import BOOT_ID
from driftloop.devices.phone import REMOTE_ROOT, Phone, RemoteProcess, free_bytes_of
from driftloop.devices.runner.ending import Scene, activity
from driftloop.devices.runner.protocol import (
    LINE,
    PROTOCOL_VERSION,
    Attestation,
    Heartbeat,
    Line,
    Request,
)

REMOTE_RUNS = f"{REMOTE_ROOT}/runs"
_LOG_LINES = 5
_WATCH = (
    f'rm -f "$0/status"; cat {BOOT_ID} >"$0/boot"; '
    'setsid "$1" "$0/request.json" "$0/results.jsonl" "$0/heartbeat.json" & '
    'cat /proc/$!/stat >"$0/started"; wait $!; echo $? >"$0/status"'
)
"""A shell that outlives the connection too: only the parent of a process learns how it ended."""


@dataclass(frozen=True)
class Poll:
    """What one poll of an attempt saw. `alive` was true before `lines` were read."""

    alive: bool
    heartbeat: Heartbeat | None
    """None before the first beat."""
    lines: list[Line]
    offset: int
    """Bytes of the results file that have been read: whole lines only."""
    damage: str | None
    """What is wrong with the line after `lines`. Nothing from there on can be believed."""


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
        watch = ["sh", "-c", _WATCH, self.folder, program]
        watching = self.phone.spawn(watch, log=f"{self.folder}/log.txt")
        stat = self._awaited("started")
        return RemoteProcess.of_stat(stat) if stat else self.process() or watching

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
        lines, size, damage = whole_lines(results)
        return Poll(
            alive=process is not None and RemoteProcess.living(stat) == process,
            heartbeat=_heartbeat(heartbeat),
            lines=lines,
            offset=offset + size,
            damage=damage,
        )

    def asked(self) -> set[tuple[str, int, int]]:
        """(case, session, position) of every image that this attempt was to answer."""
        (printed,) = self.phone.ask(f"cat {shlex.quote(self.request_path)}")
        try:
            request = Request.model_validate_json(printed)
        except ValidationError:
            return set()
        return {(one.case_id, one.session, one.position) for one in request.images}

    def scene(self, process: RemoteProcess) -> Scene:
        """What the phone says of the end of `process`, which is no longer alive."""
        folder = shlex.quote(self.folder)
        names_it = f"grep -w {process.pid} | tail -n 50 | cut -c 1-300"
        status = self._awaited("status")
        boot, boot_now, df, meminfo, log, words = self.phone.ask(
            f"cat {folder}/boot",
            f"cat {BOOT_ID}",
            f"df -k {folder}",
            "cat /proc/meminfo",
            f"(timeout 5 logcat -d -t 3000; dmesg) 2>/dev/null | {names_it}",
            f"tail -n {_LOG_LINES} {folder}/log.txt | cut -c 1-1000",
        )
        words = " | ".join(line.strip() for line in words.splitlines() if line.strip())
        return Scene.of(status, (boot, boot_now), free_bytes_of(df), meminfo, log, words)

    def activity(self, process: RemoteProcess) -> str:
        """Whether a process that no longer reports still does anything."""
        stat = f"cat /proc/{process.pid}/stat"
        return activity(*self.phone.ask(stat, f"sleep 1; {stat}"))

    def _awaited(self, name: str) -> str:
        """What a file of the folder holds that is written just now; empty if it does not come."""
        file = shlex.quote(f"{self.folder}/{name}")
        (printed,) = self.phone.ask(
            f"tries=0; until [ -s {file} ] || [ $tries -ge 50 ]; do sleep 0.02; "
            f"tries=$((tries + 1)); done; cat {file}"
        )
        return printed


def whole_lines(results: str) -> tuple[list[Line], int, str | None]:
    """The whole lines of `results` up to the first damaged one, their size in bytes, and what is
    wrong with that one."""
    lines: list[Line] = []
    size = 0
    for text in results.split("\n")[:-1]:
        try:
            lines.append(_line(text))
        except ValueError as error:
            return lines, size, _reason(error)
        size += len(text) + 1  # ASCII, so that a character is a byte
    return lines, size, None


def attempts(phone: Phone, run_folder: str) -> list[Attempt]:
    """The attempts of a run in their order; none of them need be alive."""
    (printed,) = phone.ask(f"ls {shlex.quote(run_folder)}")
    names = sorted(name for name in printed.split() if re.fullmatch(r"\d{4}", name))
    return [Attempt(phone, f"{run_folder}/{name}") for name in names]


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
    from matching; the shell that watches a runner has the folder of its attempt as one.
    """
    pattern = "[/]" + argument[1:].replace(".", "[.]")
    exact = shlex.quote(f"^{pattern}{'$' if whole else ''}")
    (printed,) = phone.ask(
        f"for file in $(grep -la {shlex.quote(pattern)} /proc/[0-9]*/cmdline); do "
        f"if tr '\\0' '\\n' <$file | grep -q {exact}; then cat ${{file%cmdline}}stat; fi; done"
    )
    return [found for line in printed.splitlines() if (found := RemoteProcess.living(line))]


def _line(text: str) -> Line:
    if not text.isascii():
        raise ValueError("it holds a character that is not ASCII")
    line = LINE.validate_json(text)
    if isinstance(line, Attestation) and line.protocol != PROTOCOL_VERSION:
        raise ValueError(f"it is of protocol {line.protocol}, not {PROTOCOL_VERSION}")
    return line


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return ": ".join([".".join(map(str, first["loc"])) or "the line", first["msg"]])


def _heartbeat(text: str) -> Heartbeat | None:
    try:
        return Heartbeat.model_validate_json(text)
    except ValidationError:
        return None
