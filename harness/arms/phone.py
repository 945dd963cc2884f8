"""`phone`: the runner on one phone, under the same settings as the desktop arm above it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from devices import health
from devices.errors import RunnerFailed
from devices.health import Health
from devices.phone import Phone
from devices.runner import client
from devices.runner.protocol import Attestation, ImageResult, RuntimeSettings
from devices.runner.work import Settings, Work, WorkImage
from harness import deploying
from harness.arms.base import Prepared
from harness.bundle import Bundle
from harness.contract import Contract, Runtime
from harness.errors import ArmUnavailable
from harness.ladder import ArmSpec
from harness.observation import Conditions, Observation

if TYPE_CHECKING:
    from harness.planning import Progress

Number = TypeVar("Number", int, float)


class PhoneArm:
    """One quant type of a bundle on one phone. The caller holds the phone's lease."""

    def __init__(
        self,
        spec: ArmSpec,
        bundle: Bundle,
        contract: Contract,
        runtime: Runtime,
        phone: Phone,
        run_id: str,
        progress: Progress,
    ) -> None:
        """`run_id` names the run on the phone: the same again goes on where the phone stands."""
        self.name = spec.name
        self.phone: str | None = phone.serial
        self._quant = spec.quant or "f16"
        self._bundle = bundle
        self._contract = contract
        self._runtime = runtime
        self._phone = phone
        self._run_id = run_id
        self._progress = progress
        self._attestation: Attestation | None = None

    def attest(self) -> Attestation:
        """What the runner said of itself when it started; known once `observe` has begun."""
        if self._attestation is None:
            raise ArmUnavailable(f"{self._phone.serial}: the runner has not been started yet")
        return self._attestation

    def observe(self, images: Iterable[Prepared]) -> Iterator[Observation]:
        """Run `images`; a session's observations come together, with the phone's condition before
        and after it.

        Raises:
            DeviceError: the phone or the runner cannot go on; what was answered has been yielded.
        """
        wanted = list(images)
        sizes = Counter(image.session for image in wanted)
        answered: dict[int, list[ImageResult]] = defaultdict(list)
        before = self._health()
        try:
            pushed = deploying.pushing(self._phone, self._progress)
            for line in client.run(self._phone, self._work(wanted), on_deploy=pushed):
                if isinstance(line, Attestation):
                    self._attestation = line
                elif isinstance(line, ImageResult):
                    session = answered[line.session]
                    session.append(line)
                    if len(session) == sizes[line.session]:
                        after = self._health()
                        yield from self._observations(session, before, after)
                        del answered[line.session]
                        before = after
        except RunnerFailed:
            for session in answered.values():
                yield from self._observations(session, before, before)
            raise

    def _work(self, images: list[Prepared]) -> Work:
        ready = deploying.payload(self._phone, self._bundle, self._quant, self._progress)
        return Work(
            run_id=self._run_id,
            runner=ready.runner.path,
            text_model=ready.text_model.path,
            text_model_sha256=ready.text_model.sha256,
            mmproj=ready.mmproj.path,
            mmproj_sha256=ready.mmproj.sha256,
            settings=self._settings(),
            images=tuple(WorkImage(**vars(image)) for image in images),
        )

    def _settings(self) -> Settings:
        contract, runtime = self._contract, self._runtime
        return Settings(
            prompt=contract.prompt.text,
            marker=contract.prompt.marker,
            add_special=contract.prompt.add_special,
            parse_special=contract.prompt.parse_special,
            max_tokens=contract.limits.max_tokens,
            labels=contract.answer.labels,
            runtime=RuntimeSettings(**runtime.model_dump(), tiling=contract.tiling),
        )

    def _health(self) -> Health:
        return self._phone.patiently(lambda: health.read(self._phone))

    def _observations(
        self, results: list[ImageResult], before: Health, after: Health
    ) -> Iterator[Observation]:
        for result in results:
            answer = result.model_dump(exclude={"record", "memory_peak_kib", "memory_kib"})
            yield Observation(
                **answer,
                contract_sha256=self._contract.sha256,
                arm=self.name,
                phone=self.phone,
                label=None if result.error else self._contract.answer.read(result.text),
                conditions=self._conditions(result, before, after),
            )

    def _conditions(self, result: ImageResult, before: Health, after: Health) -> Conditions:
        """The worse of the two where worse can be told, else how it was after."""
        return Conditions(
            thermal_status=_most(before.thermal_status, after.thermal_status),
            temp_c=_most(before.temp_c, after.temp_c),
            battery_percent=after.battery.percent,
            battery_temp_c=_most(before.battery.celsius, after.battery.celsius),
            power_source=after.battery.power_source,
            cpu_max_ratio=_least(before.cpu_max_ratio, after.cpu_max_ratio),
            throttled=before.throttled or after.throttled,
            memory_peak_kib=result.memory_peak_kib,
            memory_kib=result.memory_kib,
            boot_id=after.boot_id,
            load_ms=self._attestation.load_ms if self._attestation else None,
        )


def _most(*values: Number | None) -> Number | None:
    return max((value for value in values if value is not None), default=None)


def _least(*values: Number | None) -> Number | None:
    return min((value for value in values if value is not None), default=None)
