"""A run in progress: plan, journal, and arms that are made when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from driftloop.devices.errors import DeviceError
from driftloop.devices.phone import Phone
from driftloop.devices.runner import client
from driftloop.harness.arms.base import Arm
from driftloop.harness.arms.phone import PhoneArm
from driftloop.harness.arms.process import ArmProcess
from driftloop.harness.ladder import ArmSpec, Who
from driftloop.harness.progress import Progress
from driftloop.harness.records.journal import Journal
from driftloop.harness.running.run_plan import Plan


class OpenRun:
    """A context manager: at its end the processes of the arms on this host end too."""

    def __init__(
        self, plan: Plan, journal: Journal, attached: Sequence[Phone], progress: Progress
    ) -> None:
        """The caller holds the leases of the phones in `attached`."""
        self.plan = plan
        self.journal = journal
        self.progress = progress
        self.phones = {phone.serial: phone for phone in attached}
        for phone in attached:
            phone.disturbances.say = progress.say
        self.specs = {spec.name: spec for spec in plan.runnable}
        self._on_host: dict[ArmSpec, ArmProcess] = {}
        self._on_phones: dict[tuple[ArmSpec, str], PhoneArm] = {}

    def __enter__(self) -> OpenRun:
        return self

    def __exit__(self, *_raised: object) -> None:
        for arm in self._on_host.values():
            arm.close()
        self.keep_disturbances()

    def keep_disturbances(self) -> None:
        """Record what kept each phone from answering so far."""
        for serial, phone in self.phones.items():
            self.journal.disturbed(serial, phone.disturbances)

    def tidy(self) -> None:
        """Remove from the phones what a run leaves there. What a phone that failed has answered
        since stays, for the command that goes on with the run."""
        failed = {one.phone for one in self.journal.current.failures}
        for serial, phone in self.phones.items():
            with suppress(DeviceError):
                if serial not in failed:
                    client.discard(phone, self.journal.current.run_id)

    @property
    def parties(self) -> list[Who]:
        """Every arm that this run asks for answers, on every attached phone."""
        here: tuple[str | None, ...] = (None,)
        return [
            (spec.name, serial)
            for spec in self.specs.values()
            if spec.kind != "app"
            for serial in (here if spec.on_host else tuple(self.phones))
        ]

    def arm(self, who: Who) -> Arm:
        """The arm of that name on that phone, or on this host."""
        name, serial = who
        spec = self.specs[name]
        return self.on_host(spec) if serial is None else self.on_phone(spec, serial)

    def on_host(self, spec: ArmSpec) -> ArmProcess:
        """The arm on this host, in its process."""
        if spec not in self._on_host:
            self._on_host[spec] = ArmProcess(spec, self.plan.side(spec))
        return self._on_host[spec]

    def on_phone(self, spec: ArmSpec, serial: str) -> PhoneArm:
        """The arm on one of the attached phones."""
        if (spec, serial) not in self._on_phones:
            made = PhoneArm(
                spec,
                self.plan.side(spec),
                self.phones[serial],
                self.journal.current.run_id,
                self.progress,
                runner=self.plan.request.phone_runner,
            )
            # Another thread that asks now must get the same one, since that is the one it stops.
            self._on_phones.setdefault((spec, serial), made)
        return self._on_phones[spec, serial]
