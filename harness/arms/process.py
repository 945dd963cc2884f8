"""An arm on this host in a process of its own, so that its memory and its crashes are its own.

The process starts with the first request and then keeps its model. It ends with the process that
started it, however that ends, and ignores Ctrl-C.
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
from typing import IO, TYPE_CHECKING, Any, Final, cast

from driftloop.devices.errors import DeviceError
from driftloop.devices.runner.protocol import Attestation
from driftloop.harness.arms.base import Look, Prepared, Twins, host_arm
from driftloop.harness.arms.trajectory import Trajectory
from driftloop.harness.errors import ArmUnavailable, DriftloopError
from driftloop.harness.ladder import ArmSpec
from driftloop.harness.records.observation import Observation

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from driftloop.harness.arms.base import Arm, Side

_ENDING_S: Final = 2.0
"""How long a process that is no longer needed may take to end by itself."""


class ArmProcess:
    """The `Arm` of `host_arm(spec, side)`, asked across a pipe. Not for several threads.

    Every method raises as the arm's own does (DriftloopError, DeviceError), and ArmUnavailable
    where the process ended; the message says how, and what it was doing.
    """

    def __init__(self, spec: ArmSpec, side: Side) -> None:
        self.name = spec.name
        self.phone: str | None = None
        # Each request brings the images it is about.
        self._made_of = (spec, replace(side, images={}))
        self._running: _Running | None = None

    def attest(self) -> Attestation:
        """As the arm's own; loads its model."""
        (attestation,) = self._stream("loading its model", "attest")
        return cast("Attestation", attestation)

    def observe(self, images: Iterable[Prepared]) -> Iterator[Observation]:
        """As the arm's own."""
        return self._stream("answering", "observe", list(images))

    def record(self, images: Iterable[Prepared]) -> Iterator[Look]:
        """As the arm's own."""
        return self._stream("recording", "record", list(images))

    def drive(self, images: Iterable[tuple[Prepared, Trajectory]]) -> Iterator[Observation]:
        """As the arm's own."""
        return self._stream("driving", "drive", list(images))

    def twin(self, images: Sequence[Prepared], seed: int, vision: int) -> Iterator[Twins]:
        """As a desktop arm's own."""
        return self._stream("making a twin of", "twin", list(images), seed, vision)

    def _stream(self, doing: str, method: str, *args: object) -> Generator[Any, None, None]:
        """What the arm's `method` returns or yields; its list, if there is one, holds images."""
        total = next((len(one) for one in args if isinstance(one, list)), 0)
        if self._running is None:
            self._running = _started(*self._made_of)
        running, kind, count = self._running, "item", 0
        with suppress(OSError):  # it has ended, as the reply will show
            running.pipe.send((method, args))
        try:
            while True:
                count += 1
                try:
                    kind, value = running.pipe.recv()
                except (EOFError, OSError):
                    self._running = None
                    of = f" image {min(count, total)} of {total}" if total else ""
                    kind, died = "raised", running.death(f"{doing}{of}")
                    value = ArmUnavailable(f"arm {self.name}: its process {died}")
                if kind != "item":
                    break
                yield value
            if kind == "raised":
                raise value
        finally:
            if kind == "item":  # abandoned: what is still to come must not answer a later request
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


@dataclass(frozen=True)
class _Running:
    """A process, as the one that started it sees it."""

    process: SpawnProcess
    pipe: Connection
    said: IO[bytes]
    """What it printed: libraries print where they please."""

    def end(self) -> None:
        """It ends when its pipe is closed; while busy, it is killed."""
        self.pipe.close()
        self.process.join(_ENDING_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.said.close()

    def death(self, doing: str) -> str:
        """How it ended, and what it was doing."""
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
    # A terminal's Ctrl-C reaches the new process even before it can ignore it.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        its.close()
    return _Running(process, ours, said)


def _serve(pipe: Connection, spec: ArmSpec, side: Side, said: str) -> None:
    """The process: one request after another, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Path(said).open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    Path(said).unlink()  # the other process still has it open, and reads it
    Thread(target=_end_with_parent, daemon=True).start()
    arm: Arm | None = None
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            arm = arm or host_arm(spec, side)
            returned = getattr(arm, method)(*args)
            for item in returned if isinstance(returned, GeneratorType) else (returned,):
                pipe.send(("item", item))
            reply: tuple[str, object] = ("end", None)
        except BrokenPipeError:
            return
        except Exception as error:  # noqa: BLE001  (raised by the caller)
            reply = ("raised", _Raised(error))
        pipe.send(reply)


class _Raised:
    """An exception on its way through the pipe; unpickling it gives the exception itself.

    Those of driftloop's trees say all they have to in one line. Any other is a fault of
    driftloop's, so its traceback comes along.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        error = self._error
        if isinstance(error, DriftloopError | DeviceError):
            return _unpickled, (type(error), error.args, error.__dict__)
        trace = "".join(traceback.format_exception(error))
        return RuntimeError, (f"in the process of an arm:\n{trace}",)


def _unpickled(
    kind: type[Exception], args: tuple[object, ...], state: dict[str, object]
) -> Exception:
    # Not `kind(*args)`: some take other arguments than those they keep.
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
