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
from driftloop.devices.runner import ending, variants
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

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.08, 1.0
_KEPT_DAYS = 7
_MOST_STARTS = 10
_MOST_FRUITLESS = 3
"""Starts in a row that bring no answer."""


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

    A runner that was killed, and one whose results are damaged, is started again for what is left,
    a few times. What cannot be believed, such as an answer that was not asked for, is no answer:
    it becomes a remark of the phone's disturbances.

    An Attestation comes before the results of its process, so there is one more of them each time
    a runner was started again. The caller holds the phone's lease. Runners that other runs left
    behind are ended first: a later call of theirs resumes.

    Raises:
        RunnerFailed: the process refused the request, crashed, hung, was stuck or was killed again
            and again; the results so far have been yielded, and the same call starts a new process
            for the rest.
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

    attempt = phone.patiently(lambda: attempts(phone, run_folder(work)))[-1]
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


def prune(phone: Phone, keep: str) -> None:
    """Remove what runs other than `keep` left on the phone a week ago, by its own clock."""
    phone.shell(
        f"find {REMOTE_RUNS} -mindepth 1 -maxdepth 1 -mtime +{_KEPT_DAYS} "
        f"! -name {shlex.quote(keep)} -exec rm -rf {{}} + 2>/dev/null",
        check=False,
    )


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
        self.answered: dict[tuple[str, int, int], ImageResult] = {}
        """Without what differs from one time to the next."""
        self.asked: dict[Attempt, set[tuple[str, int, int]]] = {}
        self.folder = run_folder(self.work)
        # Beside the attempts, so that every one of them finds it.
        self.stop_path = f"{self.folder}.stop"

    def lines(self, on_deploy: deploy.Progress | None) -> Iterator[Line]:
        earlier = self.phone.patiently(lambda: attempts(self.phone, self.folder))
        self.phone.patiently(lambda: end_all(self.phone, but=self.folder))
        self.phone.patiently(lambda: prune(self.phone, self.work.run_id))
        self.stopped = self.phone.patiently(lambda: self.phone.exists(self.stop_path))
        fault: RunnerFault | None = None
        for attempt in earlier:
            process = self.phone.patiently(attempt.process)
            # How an earlier process refused does not matter: what it left undone is started anew.
            ended = yield from self._followed(attempt, process)
            fault = ended if ended and ended.kind in ending.PASSING else None
        self._heed_stop()
        number = 1 + int(earlier[-1].folder[-4:]) if earlier else 0
        starts = fruitless = 0
        while self._wanted():
            if fault is not None:
                if starts == _MOST_STARTS or fruitless == _MOST_FRUITLESS:
                    raise RunnerFailed(self.phone.serial, fault.kind, fault.detail)
                self._say(
                    f"{fault.kind}: {fault.detail}; {len(self._wanted())} images are run again"
                )
            attempt = Attempt(self.phone, f"{self.folder}/{number + starts:04d}")
            left = len(self.pending)
            fault = yield from self._followed(attempt, self._start(attempt, on_deploy))
            starts += 1
            fruitless = 0 if len(self.pending) < left else fruitless + 1
            if fault is None and (missing := len(self._wanted())):
                fault = RunnerFault(kind="internal", detail=f"{missing} images left out")
            if fault is not None and fault.kind not in ending.PASSING:
                raise RunnerFailed(self.phone.serial, fault.kind, fault.detail)
        yield Finished(images=len(self.work.images) - len(self.pending))

    def _say(self, what: str) -> None:
        self.phone.disturbances.remark(f"{self.phone.serial}: {what}")

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
        self.phone.disturbances.starts += 1

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
        offset = results = 0
        patience = _Patience(self.limits)
        while True:
            self._heed_stop(patience.restart)
            poll = self.phone.patiently(partial(attempt.poll, process, offset), patience.restart)
            offset = poll.offset
            for line in poll.lines:
                if isinstance(line, Finished):
                    return line.error
                results += isinstance(line, ImageResult)
                if isinstance(line, Attestation) or self._takes(attempt, line):
                    yield line
            if poll.damage is not None:
                self._kill(process)
                after = f"after {results} answers in {attempt.folder}"
                detail = f"what the runner wrote {after} cannot be read ({poll.damage})"
                return RunnerFault(kind="damaged", detail=detail)
            if process is None:
                return None
            if not poll.alive:
                scene = self.phone.patiently(partial(attempt.scene, process))
                return ending.fault(scene, poll.heartbeat, self._misfit)
            if fault := patience.fault(poll.heartbeat, len(poll.lines)):
                return self._given_up(attempt, process, fault)
            time.sleep(patience.pause_s)

    def _takes(self, attempt: Attempt, result: ImageResult) -> bool:
        """Whether the result answers a pending image, which then is no longer pending."""
        slot = (result.case_id, result.session, result.position)
        said = result.model_copy(update={"timings_ms": None, "memory_peak_kib": 0, "memory_kib": 0})
        for place, image in enumerate(self.pending):
            if image.is_answered_by(result):
                del self.pending[place]
                self.answered[slot] = said
                return True
        which = f"case {result.case_id} (session {result.session}, position {result.position})"
        if slot not in self.answered:
            # Another call may have asked this attempt for other images of the run.
            if attempt not in self.asked:
                self.asked[attempt] = self.phone.patiently(attempt.asked)
            if slot not in self.asked[attempt]:
                self._say(f"the phone answered {which}, which it was not asked; it does not count")
        elif (first := self.answered[slot]) != said:
            texts = f"{first.text[:40]!r}, then {said.text[:40]!r}"
            self._say(f"the phone answered {which} twice and not alike: {texts}; the first counts")
        return False

    def _given_up(
        self, attempt: Attempt, process: RemoteProcess, fault: RunnerFault
    ) -> RunnerFault:
        """`fault`, with what the process that it is about does; it is then ended."""
        doing = self.phone.patiently(partial(attempt.activity, process))
        self._kill(process)
        scene = self.phone.patiently(partial(attempt.scene, process))
        if scene.is_full:
            return RunnerFault(kind="storage", detail=f"{fault.detail}; {ending.full(scene)}")
        return RunnerFault(kind=fault.kind, detail=f"{fault.detail}; {doing}; it was ended")

    def _kill(self, process: RemoteProcess | None) -> None:
        if process is not None:
            self.phone.patiently(partial(self.phone.kill, process))

    def _misfit(self) -> str:
        identity = self.phone.patiently(self.phone.identity)
        return variants.misfit(variants.of_program(self.work.runner), identity)


def pause_s(pace_s: float, waited_s: float) -> float:
    """How long to leave the phone alone: half the time until the next result is due, or since it
    was, as the one before it took `pace_s`.

    A look costs a phone some 6 ms of a core, whose speed is being judged: at a fixed 12 looks a
    second, 7 to 9 % of it.
    """
    return min(max(abs(pace_s - waited_s) / 2, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)


@dataclass
class _Patience:
    """How long there has been no sign of life, and no result, by this host's monotonic clock."""

    limits: Limits
    beat: int | None = None
    beat_s: float = field(default_factory=time.monotonic)
    result_s: float = field(default_factory=time.monotonic)
    pace_s: float = 0.0
    """How long the latest result took; 0 before any."""

    @property
    def pause_s(self) -> float:
        """Until the next look at the phone."""
        return pause_s(self.pace_s, time.monotonic() - self.result_s)

    def restart(self) -> None:
        """Silence does not count against a runner while the phone is out of reach."""
        self.beat_s = self.result_s = time.monotonic()

    def fault(self, heartbeat: Heartbeat | None, new_lines: int) -> RunnerFault | None:
        """Why the runner counts as lost; None while it does not."""
        now_s = time.monotonic()
        if heartbeat and heartbeat.beat != self.beat:
            self.beat, self.beat_s = heartbeat.beat, now_s
        if new_lines:
            self.pace_s = (now_s - self.result_s) / new_lines
            self.result_s = now_s
        stage = heartbeat.stage if heartbeat else "start"
        for kind, sign, since_s, limit_s in (
            ("hung", "sign of life", self.beat_s, self.limits.heartbeat_s),
            ("stuck", "result", self.result_s, self.limits.image_s),
        ):
            if now_s - since_s > limit_s:
                detail = f"no {sign} for {limit_s:g} s in stage {stage}"
                return RunnerFault(kind=kind, detail=detail)
        return None
