"""`phone`: the runner on one phone, under the same settings as the desktop arm above it."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from driftloop.devices import deploy, health
from driftloop.devices.errors import RunnerFailed
from driftloop.devices.health import Health
from driftloop.devices.phone import Phone
from driftloop.devices.runner import client
from driftloop.devices.runner.protocol import Attestation, ImageResult
from driftloop.devices.runner.work import Work, WorkImage
from driftloop.harness.arms import base, deployment
from driftloop.harness.arms.base import Look, Prepared, Side, runtime
from driftloop.harness.arms.trajectory import Trajectory
from driftloop.harness.errors import ArmUnavailable
from driftloop.harness.ladder import ArmSpec
from driftloop.harness.records.observation import Conditions, Observation, Place

if TYPE_CHECKING:
    from driftloop.harness.progress import Progress

Number = TypeVar("Number", int, float)

_RECORD = "record"
"""The name of every recording's run on a phone: the next one replaces it."""

_NOT_OBSERVED = {
    "record", "case_id", "session", "position", "memory_peak_kib", "memory_kib", "tensors"
}  # fmt: skip
"""Fields of an `ImageResult` that an observation has from elsewhere or not at all."""


class PhoneArm:
    """One quant type of a bundle on one phone. The caller holds the phone's lease."""

    def __init__(
        self,
        spec: ArmSpec,
        side: Side,
        phone: Phone,
        run_id: str,
        progress: Progress,
        *,
        runner: Path | None = None,
    ) -> None:
        """`run_id` names the run on the phone; a second run of that name resumes the first.

        `runner`: a program of the user's own in place of the one built for this phone.
        """
        self.name = spec.name
        self.phone: str | None = phone.serial
        self._spec = spec
        self._side = side
        self._phone = phone
        self._run_id = run_id
        self._progress = progress
        self._runner = runner
        self._stop = threading.Event()
        self._images: dict[Place, Prepared] = {}
        self._attestation: Attestation | None = None
        self._load_ms: dict[Place, float] = {}
        """Of the process that answered: a session may have been finished by another."""

    def attest(self) -> Attestation:
        """What the runner said of itself when it started; known once `observe` has begun."""
        if self._attestation is None:
            raise ArmUnavailable(f"{self._phone.serial}: the runner has not been started yet")
        return self._attestation

    def stop(self) -> None:
        """Begin no further case: the current one is finished, the canaries are still run, and
        `observe` then ends. The run stays stopped when it is resumed."""
        self._stop.set()

    def observe(self, images: Iterable[Prepared]) -> Iterator[Observation]:
        """Runs `images`; a session's observations come together, with the phone's condition before
        and after it. A session that `stop` cut short comes last, as far as it went.

        Raises:
            DeviceError: the phone or the runner cannot go on; finished sessions, and what is known
                of others after RunnerFailed, have been yielded.
        """
        wanted = list(images)
        sizes = Counter(image.session for image in wanted)
        answered: dict[int, list[ImageResult]] = defaultdict(list)
        before = self._health()
        work = self._work([(image, None) for image in wanted])
        try:
            for line in client.run(self._phone, work, on_deploy=self._pushing(), stop=self._stop):
                if isinstance(line, Attestation):
                    self._attestation = line
                elif isinstance(line, ImageResult):
                    session = answered[line.session]
                    session.append(line)
                    if self._attestation:
                        place = (line.session, line.position)
                        self._load_ms[place] = self._attestation.load_ms
                    if len(session) == sizes[line.session]:
                        after = self._health()
                        yield from self._observations(session, before, after)
                        del answered[line.session]
                        before = after
        except RunnerFailed:
            yield from self._observations(chain.from_iterable(answered.values()), before, before)
            raise
        if answered:
            yield from self._observations(
                chain.from_iterable(answered.values()), before, self._health()
            )

    def record(self, images: Iterable[Prepared]) -> Iterator[Look]:
        """Runs `images` in deep mode, in a process of their own. Raises as `observe` does."""
        work = replace(self._work([(image, None) for image in images]), run_id=_RECORD)
        before = self._health()
        for result, tensors in client.run_deep(self._phone, work, on_deploy=self._pushing()):
            (observation,) = self._observations([result], before, before)
            yield Look(observation, tensors)

    def drive(self, images: Iterable[tuple[Prepared, Trajectory]]) -> Iterator[Observation]:
        """Runs `images`, each along its trajectory, in a process of their own; a second call with
        the same images resumes the first. Raises as `observe` does."""
        work = self._work(list(images))
        before = self._health()
        for line in client.run(self._phone, work, on_deploy=self._pushing()):
            if isinstance(line, ImageResult):
                yield from self._observations([line], before, before)

    def _work(self, images: Sequence[tuple[Prepared, Trajectory | None]]) -> Work:
        bundle, contract = self._side.bundle, self._side.contract
        quant = self._spec.quant or "f16"
        ready = deployment.payload(self._phone, bundle, quant, self._progress, runner=self._runner)
        self._images = {(one.session, one.position): one for one, _ in images}
        return ready.work(
            self._run_id,
            contract,
            runtime(self._spec, contract),
            [
                WorkImage(
                    case_id=image.case_id,
                    session=image.session,
                    position=image.position,
                    pixels_path=image.pixels_path,
                    pixels_sha256=image.pixels_sha256,
                    always=image.canary is not None,
                    trajectory=deploy.LocalBlob(along.path, along.sha256) if along else None,
                )
                for image, along in images
            ],
        )

    def _pushing(self) -> deploy.Progress:
        return deployment.pushing(self._phone, self._progress)

    def _health(self) -> Health:
        return self._phone.patiently(lambda: health.read(self._phone))

    def _observations(
        self, results: Iterable[ImageResult], before: Health, after: Health
    ) -> Iterator[Observation]:
        for result in results:
            image = self._images[result.session, result.position]
            answer = result.model_dump(exclude=_NOT_OBSERVED)
            answer["conditions"] = self._conditions(result, before, after)
            yield base.observed((self.name, self.phone), self._side.contract, image, answer)

    def _conditions(self, result: ImageResult, before: Health, after: Health) -> Conditions:
        """The worse of the two readings where one is worse, else the later one."""
        return Conditions(
            thermal_status=_most(before.thermal_status, after.thermal_status),
            temp_c=_most(before.temp_c, after.temp_c),
            battery_percent=after.battery.percent,
            battery_temp_c=_most(before.battery.celsius, after.battery.celsius),
            power_source=after.battery.power_source,
            cpu_max_ratio=min(
                (one for one in (before.cpu_max_ratio, after.cpu_max_ratio) if one is not None),
                default=None,
            ),
            throttled=before.throttled or after.throttled,
            memory_peak_kib=result.memory_peak_kib,
            memory_kib=result.memory_kib,
            boot_id=after.boot_id,
            load_ms=self._load_ms.get((result.session, result.position)),
        )


def _most(*values: Number | None) -> Number | None:
    return max((value for value in values if value is not None), default=None)
