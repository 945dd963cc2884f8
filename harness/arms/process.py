"""An arm on this host in a process of its own: its memory is its own, and so is its death.

The process is started when the arm is first asked for something and then keeps its model. It ends
with the process that started it, however that ends, and has no part in Ctrl-C.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from types import GeneratorType
from typing import IO, TYPE_CHECKING, Any, Final, Literal, cast

from devices.errors import DeviceError
from devices.runner.protocol import Attestation
from harness.arms import build
from harness.arms.base import Look, Prepared, Twins
from harness.arms.trajectory import Trajectory
from harness.errors import ArmUnavailable, DriftloopError
from harness.ladder import ArmSpec
from harness.records.observation import Observation

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from harness.arms.base import Arm, Side

_ENDING_S: Final = 2.0
"""How long a process that is no longer needed may take to end by itself."""


class ArmProcess:
    """The `Arm` of `build.host_arm(spec, side)`, asked across a pipe. Not for several threads."""

    def __init__(self, spec: ArmSpec, side: Side) -> None:
        self.name = spec.name
        self.phone: str | None = None
        # The images that an arm is to run are told it one by one.
        self._made_of = (spec, replace(side, images={}))
        self._running: _Running | None = None

    def attest(self) -> Attestation:
        """As the arm's own; loads its model. Raises as it does, and as `stream` does."""
        return cast("Attestation", self.call("loading its model", "attest"))

    def observe(self, images: Iterable[Prepared]) -> Iterator[Observation]:
        """As the arm's own. Raises as it does, and as `stream` does."""
        asked = list(images)
        return self.stream("answering", "observe", asked, of=len(asked))

    def record(self, images: Iterable[Prepared]) -> Iterator[Look]:
        """As the arm's own. Raises as it does, and as `stream` does."""
        asked = list(images)
        return self.stream("recording", "record", asked, of=len(asked))

    def drive(self, images: Iterable[tuple[Prepared, Trajectory]]) -> Iterator[Observation]:
        """As the arm's own. Raises as it does, and as `stream` does."""
        asked = list(images)
        return self.stream("driving", "drive", asked, of=len(asked))

    def twin(self, images: Sequence[Prepared], seed: int, vision: int) -> Iterator[Twins]:
        """As a desktop arm's own. Raises as it does, and as `stream` does."""
        asked = list(images)
        return self.stream("making a twin of", "twin", asked, seed, vision, of=len(asked))

    def call(self, doing: str, method: str, *args: object) -> object:
        """What the arm's `method` returns. Raises as `stream` does."""
        running = self._ask(method, args)
        kind, value = self._reply(running, doing)
        if kind == "raised":
            raise value
        return value

    def stream(self, doing: str, method: str, *args: object, of: int) -> Generator[Any, None, None]:
        """What the generator of the arm's `method` yields. `doing`, `of`: what is said if the
        process ends in the middle, as in `answering image 3 of 12`.

        Raises:
            ArmUnavailable: the process ended; says how, and with what it was busy.
            DriftloopError, DeviceError: as the arm raised them.
        """
        running = self._ask(method, args)
        count = 0
        kind = "item"
        try:
            while True:
                kind, value = self._reply(running, f"{doing} image {min(count + 1, of)} of {of}")
                if kind != "item":
                    break
                count += 1
                yield value
            if kind == "raised":
                raise value
        finally:
            if kind == "item":  # left in the middle: what still comes is nobody's
                self.close()

    def close(self) -> None:
        """End the process; a later call starts another."""
        if self._running is not None:
            self._running.end()
            self._running = None

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return None if self._running is None else self._running.process.pid

    def _ask(self, method: str, args: tuple[object, ...]) -> _Running:
        if self._running is None:
            self._running = _started(*self._made_of)
        with suppress(OSError):  # it has ended, which the reply tells
            self._running.pipe.send((method, args))
        return self._running

    def _reply(self, running: _Running, doing: str) -> tuple[_Kind, Any]:
        try:
            return cast("tuple[_Kind, Any]", running.pipe.recv())
        except (EOFError, OSError):
            self._running = None
            raise ArmUnavailable(f"arm {self.name}: its process {running.death(doing)}") from None


_Kind = Literal["item", "returned", "raised"]


@dataclass(frozen=True)
class _Running:
    """A process, as the one that started it sees it."""

    process: SpawnProcess
    pipe: Connection
    said: IO[bytes]
    """What it printed; libraries print where they please."""

    def end(self) -> None:
        """It ends when its pipe does; where it is busy, it is killed."""
        self.pipe.close()
        self.process.join(_ENDING_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.said.close()

    def death(self, doing: str) -> str:
        """How it ended, and with what it was busy."""
        self.process.join()
        status = self.process.exitcode or 0
        how = f"exited with {status}"
        if status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        if status == -signal.SIGKILL:
            how += ", as a system does that has no memory left,"
        lines = self.said.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), None)
        self.end()
        return f"{how} while {doing}{f'; it said: {last}' if last else ''}"


def _started(spec: ArmSpec, side: Side) -> _Running:
    said = tempfile.NamedTemporaryFile(prefix="driftloop-", delete=False)  # noqa: SIM115
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(
        target=_serve, args=(its, spec, side, said.name), name=spec.name, daemon=True
    )
    # A terminal's Ctrl-C reaches every process in it, this one even before it can say no.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        its.close()
    return _Running(process, ours, said)


def _serve(pipe: Connection, spec: ArmSpec, side: Side, said: str) -> None:
    """The process: one request after another, until nobody can ask any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Path(said).open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    Path(said).unlink()  # read through what the other process holds open
    Thread(target=_end_with_parent, daemon=True).start()
    arm: Arm | None = None
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            arm = arm or build.host_arm(spec, side)
            returned = getattr(arm, method)(*args)
            if isinstance(returned, GeneratorType):
                for item in returned:
                    pipe.send(("item", item))
                returned = None
            reply = ("returned", returned)
        except BrokenPipeError:
            return
        except Exception as error:  # noqa: BLE001  (raised where it was asked for)
            reply = ("raised", _Raised(error))
        pipe.send(reply)


class _Raised:
    """An exception on its way; on arrival it is one again.

    Those of the house say what they have to in one line. Any other is a fault of driftloop's, of
    which the place is what matters.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        error = self._error
        if isinstance(error, DriftloopError | DeviceError):
            return _again, (type(error), error.args, error.__dict__)
        told = "".join(traceback.format_exception(error))
        return RuntimeError, (f"in the process of an arm:\n{told}",)


def _again(kind: type[Exception], args: tuple[object, ...], state: dict[str, object]) -> Exception:
    # Some take other arguments than those they keep.
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
