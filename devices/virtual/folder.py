"""The folder of one virtual phone on the host, and the plan that its supervisor follows."""

from __future__ import annotations

import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from devices.virtual import cpus, rootfs
from devices.virtual.cpus import Abi
from devices.virtual.parts import Parts
from devices.virtual.rootfs import Storage


@dataclass(frozen=True)
class Plan:
    """How a phone is put together; written once, before it starts. Paths are the host's."""

    name: str
    abi: Abi
    port: int
    cpu: str | None
    storage_mb: int | None
    prefix: str
    system_bin: str
    shim: str
    emulator: str | None

    def parts(self) -> Parts:
        """The parts this phone was started from."""
        emulator = Path(self.emulator) if self.emulator else None
        return Parts(Path(self.prefix), Path(self.system_bin), Path(self.shim), emulator)

    def storage(self, folder: PhoneFolder) -> Storage:
        """Where its /data is kept."""
        return Storage(folder.data, self.storage_mb)

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
            variables["QEMU_CPU"] = cpus.CPUS[self.cpu].qemu
        return variables


@dataclass(frozen=True)
class PhoneFolder:
    """Paths under one phone's folder."""

    path: Path

    @property
    def plan(self) -> Path:
        """The plan, JSON."""
        return self.path / "phone.json"

    @property
    def alive(self) -> Path:
        """Locked by the supervisor for as long as it lives."""
        return self.path / "alive.lock"

    @property
    def supervisor_pid(self) -> Path:
        """The supervisor's pid as the host counts."""
        return self.path / "supervisor.pid"

    @property
    def adbd_pid(self) -> Path:
        """adbd's pid as the host counts, of its present life."""
        return self.path / "adbd.pid"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor printed."""
        return self.path / "supervisor.log"

    @property
    def adbd_log(self) -> Path:
        """What adbd printed, over all its lives."""
        return self.path / "adbd.log"

    @property
    def state(self) -> Path:
        """The state that a test may change."""
        return self.path / "state" / "state.json"

    @property
    def data(self) -> Path:
        """/data of a phone without a size limit."""
        return self.path / "data"

    @property
    def root(self) -> Path:
        """Where the phone's file system is mounted, inside its namespace only."""
        return self.path / "root"

    def create(self, plan: Plan) -> None:
        """Makes the folder and writes the plan."""
        for folder in (self.data, self.root, self.state.parent):
            folder.mkdir(parents=True)
        self.plan.write_text(json.dumps(asdict(plan), indent=1))

    def read_plan(self) -> Plan:
        """The plan as written."""
        return Plan(**json.loads(self.plan.read_text()))

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
