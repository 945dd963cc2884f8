"""The arms of a run: each made when it is first asked for, and kept until the run ends."""

from __future__ import annotations

from collections.abc import Sequence

from devices.phone import Phone
from harness.arms import build
from harness.arms.base import Arm
from harness.arms.phone import PhoneArm
from harness.arms.process import ArmProcess
from harness.ladder import ArmSpec
from harness.progress import Progress
from harness.running.run_plan import Plan


class OpenArms:
    """A context manager: at its end the processes of the arms on this host end too."""

    def __init__(
        self, plan: Plan, attached: Sequence[Phone], run_id: str, progress: Progress
    ) -> None:
        """The caller holds the leases of the phones in `attached`."""
        self._plan = plan
        self._phones = {phone.serial: phone for phone in attached}
        self._run_id = run_id
        self._progress = progress
        self._on_host: dict[ArmSpec, ArmProcess] = {}
        self._on_phones: dict[tuple[ArmSpec, str], PhoneArm] = {}

    def __enter__(self) -> OpenArms:
        return self

    def __exit__(self, *_raised: object) -> None:
        for arm in self._on_host.values():
            arm.close()

    @property
    def serials(self) -> tuple[str, ...]:
        """Of the attached phones."""
        return tuple(self._phones)

    def of(self, spec: ArmSpec, serial: str | None) -> Arm:
        """The arm on that phone; on this host where there is no serial."""
        return self.on_host(spec) if serial is None else self.on_phone(spec, serial)

    def on_host(self, spec: ArmSpec) -> ArmProcess:
        """The arm on this host, in its process."""
        if spec not in self._on_host:
            self._on_host[spec] = ArmProcess(spec, self._plan.side(spec))
        return self._on_host[spec]

    def on_phone(self, spec: ArmSpec, serial: str) -> PhoneArm:
        """The arm on one of the attached phones."""
        if (spec, serial) not in self._on_phones:
            side = self._plan.side(spec)
            made = PhoneArm(
                spec,
                side.bundle,
                side.contract,
                build.runtime(spec, side.contract),
                self._phones[serial],
                self._run_id,
                self._progress,
                runner=self._plan.phone_runner,
            )
            # Whoever else asks at this moment gets the same one: it may be told to stop.
            self._on_phones.setdefault((spec, serial), made)
        return self._on_phones[spec, serial]
