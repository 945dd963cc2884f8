"""Running the runner on a phone: started detached, followed, resumed.

Everything that must outlive this process is on the phone and is read again at every call: answers
that are there are taken, a runner that still runs is followed, and only what is then missing is
started anew.
"""

from __future__ import annotations

import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.devices import deploy
from driftloop.devices.errors import RunnerFailed
from driftloop.devices.phone import Phone, RemoteProcess
from driftloop.devices.runner.attempt import REMOTE_RUNS, Attempt, attempts, end_all
from driftloop.devices.runner.protocol import (
    Attestation,
    Finished,
    Heartbeat,
    ImageResult,
    Line,
    RunnerFault,
    tensors_name,
)
from driftloop.devices.runner.work import Work, WorkImage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[np.float32]]

_POLL_S = 0.08


@dataclass(frozen=True)
class Limits:
    """When a runner that still exists counts as lost."""

    heartbeat_s: float = 30.0
    """Without a new beat: the process hangs or the phone has stopped it."""
    image_s: float = 900.0
    """Without a new result, though it beats: the model is stuck."""


def run(
    phone: Phone,
    work: Work,
    *,
    limits: Limits = Limits(),
    on_deploy: deploy.Progress | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Line]:
    """Run `work` on the phone; each image's result once, in no promised order, then Finished.

    Once `stop` is set, of the images not yet begun only those marked `always` are run. A run that
    was stopped stays so: a later call of it starts no other image either. `Finished.images` is the
    number of images answered.

    An Attestation comes before the results of its process, so there is one more of them each time
    a run was resumed after its runner had ended. The caller holds the phone's lease. Runners that
    other runs left behind are ended first: a later call of theirs resumes.

    Raises:
        RunnerFailed: the process refused the request, died, hung or was stuck; the results so far
            have been yielded, and the same call starts a new process for the rest.
        PhoneOffline: the connection was lost and the phone did not come back; the runner goes on.
        DeviceError: whatever a deploy raises.
    """
    yield from _Run(phone, work, limits, stop).lines(on_deploy)


def run_deep(
    phone: Phone, work: Work, *, on_deploy: deploy.Progress | None = None
) -> Iterator[tuple[ImageResult, Tensors]]:
    """Run `work` in deep mode; each image's result with its tensors, in the order of `work.images`.

    Each image's tensors are fetched and removed as they come, so that the phone holds those of two
    images at most. Always a new run, whatever the phone holds under `work.run_id`, and nothing of
    it stays there. The caller holds the phone's lease.

    Raises:
        DeviceError: as `run`; what was answered before a RunnerFailed has been yielded.
    """
    deep = replace(work, deep=True)
    phone.patiently(lambda: discard(phone, work.run_id))
    try:
        for line in run(phone, deep, on_deploy=on_deploy):
            if isinstance(line, ImageResult):
                yield line, _fetched(phone, deep, line)
    except (RunnerFailed, GeneratorExit):
        phone.patiently(lambda: discard(phone, work.run_id))
        raise
    phone.patiently(lambda: discard(phone, work.run_id))


def _fetched(phone: Phone, work: Work, result: ImageResult) -> Tensors:
    """The tensors of `result`, which are then no longer on the phone."""
    import numpy as np

    (attempt,) = phone.patiently(lambda: attempts(phone, run_folder(work)))
    remote = f"{attempt.tensors_folder}/{tensors_name(result.session, result.position)}"
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "tensors"
        phone.patiently(lambda: phone.pull(remote, local))
        phone.patiently(lambda: phone.shell(f"rm -f {shlex.quote(remote)}"))
        return {
            one.name: np.fromfile(
                local, "<f4", int(np.prod(one.shape)), offset=one.offset_bytes
            ).reshape(one.shape)
            for one in result.tensors
        }


def run_folder(work: Work) -> str:
    """Where the attempts of a run lie on a phone."""
    return f"{REMOTE_RUNS}/{work.run_id}/{work.sha256[:16]}"


def discard(phone: Phone, run_id: str) -> None:
    """Remove a run's folder from the phone, ending its runner first; blobs stay."""
    folder = f"{REMOTE_RUNS}/{run_id}"
    end_all(phone, below=folder)
    phone.shell(f"rm -rf {shlex.quote(folder)}")


@dataclass
class _Run:
    """One call of `run`. `pending` shrinks as answers come in."""

    phone: Phone
    work: Work
    limits: Limits
    stop: threading.Event | None
    stopped: bool = False

    def __post_init__(self) -> None:
        self.pending = list(self.work.images)
        self.folder = run_folder(self.work)
        # Beside the attempts, so that every one of them finds it.
        self.stop_path = f"{self.folder}.stop"

    def lines(self, on_deploy: deploy.Progress | None) -> Iterator[Line]:
        earlier = self.phone.patiently(lambda: attempts(self.phone, self.folder))
        self.phone.patiently(lambda: end_all(self.phone, but=self.folder))
        self.stopped = self.phone.patiently(lambda: self.phone.exists(self.stop_path))
        for attempt in earlier:
            process = self.phone.patiently(attempt.process)
            # How an earlier process ended does not matter: what it left undone is started anew.
            yield from self._followed(attempt, process)
        self._heed_stop()
        if self._wanted():
            attempt = Attempt(self.phone, f"{self.folder}/{len(earlier):04d}")
            fault = yield from self._followed(attempt, self._start(attempt, on_deploy))
            if fault is None and (missing := len(self._wanted())):
                fault = RunnerFault(kind="internal", detail=f"{missing} images left out")
            if fault is not None:
                raise RunnerFailed(self.phone.serial, fault.kind, fault.detail)
        yield Finished(images=len(self.work.images) - len(self.pending))

    def _wanted(self) -> list[WorkImage]:
        """Pending images that are still to be run."""
        return [image for image in self.pending if image.always or not self.stopped]

    def _heed_stop(self, lost: Callable[[], None] | None = None) -> None:
        """Tell the phone once that the run is stopped. The runner looks before each image."""
        if self.stopped or self.stop is None or not self.stop.is_set():
            return
        folder, path = shlex.quote(self.folder), shlex.quote(self.stop_path)
        self.phone.patiently(lambda: self.phone.shell(f"mkdir -p {folder} && : >{path}"), lost)
        self.stopped = True

    def _start(self, attempt: Attempt, on_deploy: deploy.Progress | None) -> RemoteProcess:
        blobs = self.work.blobs()
        remote = self.phone.patiently(lambda: deploy.deploy(self.phone, blobs, progress=on_deploy))
        request = self.work.request(
            self._wanted(), remote, stop_path=self.stop_path, tensors_folder=attempt.tensors_folder
        )
        self.phone.patiently(lambda: attempt.prepare(request))

        def start() -> RemoteProcess:
            # A start whose answer was lost with the connection may have worked.
            return attempt.process() or attempt.start(remote[blobs[0].sha256])

        return self.phone.patiently(start)

    def _followed(
        self, attempt: Attempt, process: RemoteProcess | None
    ) -> Generator[Line, None, RunnerFault | None]:
        """Everything the attempt writes that is still pending, until its process has ended.

        Returns how the process ended: None when it finished its request.
        """
        offset = 0
        patience = _Patience(self.limits)
        while True:
            self._heed_stop(patience.restart)
            poll = self.phone.patiently(partial(attempt.poll, process, offset), patience.restart)
            offset = poll.offset
            for line in poll.lines:
                if isinstance(line, Finished):
                    return line.error
                if isinstance(line, Attestation) or self._takes(line):
                    yield line
            if not poll.alive:
                return self._death(attempt, poll.heartbeat)
            if process and (fault := patience.fault(poll.heartbeat, len(poll.lines))):
                self.phone.patiently(lambda: self.phone.kill(process))
                return fault
            time.sleep(_POLL_S)

    def _takes(self, result: ImageResult) -> bool:
        """Whether the result answers a pending image, which then is no longer pending."""
        for place, image in enumerate(self.pending):
            if image.is_answered_by(result):
                del self.pending[place]
                return True
        return False

    def _death(self, attempt: Attempt, heartbeat: Heartbeat | None) -> RunnerFault:
        where = f"in stage {heartbeat.stage} of image {heartbeat.image}" if heartbeat else "at once"
        words = self.phone.patiently(attempt.last_words)
        why = f"its last output: {words}" if words else "killed by a signal or for lack of memory"
        return RunnerFault(kind="died", detail=f"it ended {where}; {why}")


@dataclass
class _Patience:
    """How long there has been no sign of life, and no result, by this host's monotonic clock."""

    limits: Limits
    beat: int | None = None
    beat_s: float = field(default_factory=time.monotonic)
    result_s: float = field(default_factory=time.monotonic)

    def restart(self) -> None:
        """Silence does not count against a runner while the phone is out of reach."""
        self.beat_s = self.result_s = time.monotonic()

    def fault(self, heartbeat: Heartbeat | None, new_lines: int) -> RunnerFault | None:
        """Why the runner counts as lost; None while it does not."""
        now_s = time.monotonic()
        if heartbeat and heartbeat.beat != self.beat:
            self.beat, self.beat_s = heartbeat.beat, now_s
        if new_lines:
            self.result_s = now_s
        stage = heartbeat.stage if heartbeat else "start"
        for kind, sign, since_s, limit_s in (
            ("hung", "sign of life", self.beat_s, self.limits.heartbeat_s),
            ("stuck", "result", self.result_s, self.limits.image_s),
        ):
            if now_s - since_s > limit_s:
                detail = f"no {sign} for {limit_s:g} s in stage {stage}; it was ended"
                return RunnerFault(kind=kind, detail=detail)
        return None
