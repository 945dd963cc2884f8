"""The folder of one virtual phone on the host, and the plan that its supervisor follows."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from driftloop.devices.identity import Abi
from driftloop.devices.virtual import rootfs
from driftloop.devices.virtual.cpus import CPUS
from driftloop.devices.virtual.parts import Parts


@dataclass(frozen=True)
class Plan(Parts):
    """How a phone is put together, and of which parts; written once, before it starts."""

    name: str
    abi: Abi
    port: int
    cpu: str | None
    storage_mb: int | None

    def environment(self) -> dict[str, str]:
        """What adbd, and through it every shell, is started with."""
        variables = {
            "ADBD_PORT": str(self.port),
            "ANDROID_DATA": "/data",
            "ANDROID_ROOT": "/system",
            "HOME": "/",
            "LD_PRELOAD": rootfs.SHIM,
            "PATH": "/system/bin",
            "TMPDIR": "/data/local/tmp",
        }
        if self.cpu is not None:
            variables["DRIFTLOOP_QEMU"] = rootfs.EMULATOR
            variables["QEMU_CPU"] = CPUS[self.cpu].qemu
        return variables


class PhoneFolder:
    """Paths under one phone's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan = path / "phone.json"
        self.supervisor_log = path / "supervisor.log"
        self.adbd_log = path / "adbd.log"
        # locked by the supervisor for as long as it lives
        self.alive = path / "alive.lock"
        # pids as the host counts; adbd's is that of its present life
        self.supervisor_pid = path / "supervisor.pid"
        self.adbd_pid = path / "adbd.pid"
        # what a test may change
        self.state = path / "state" / "state.json"
        # /data of a phone without a size limit
        self.data = path / "data"
        # where the phone's file system is mounted, inside its namespace only
        self.root = path / "root"

    def create(self, plan: Plan) -> None:
        """Makes the folder and writes the plan."""
        for folder in (self.data, self.root, self.state.parent):
            folder.mkdir(parents=True)
        self.plan.write_bytes(TypeAdapter(Plan).dump_json(plan, indent=1))

    def read_plan(self) -> Plan:
        """The plan as written."""
        return TypeAdapter(Plan).validate_json(self.plan.read_bytes())

    def is_alive(self) -> bool:
        """Whether a supervisor runs this phone; a pid alone could be another program's by now."""
        if not self.alive.exists():
            return False
        with self.alive.open() as probe:
            try:
                fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def is_ready(self) -> bool:
        """Whether adbd has been started, so that all of the phone's files are there."""
        return self.adbd_pid.exists()

    def write_adbd_pid(self, pid: int) -> None:
        """Records a new life of adbd, whole or not at all."""
        new = self.adbd_pid.with_suffix(".new")
        new.write_text(str(pid))
        new.replace(self.adbd_pid)
