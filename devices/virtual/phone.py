"""Starting, listing and stopping virtual phones."""

from __future__ import annotations

import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from driftloop import devices
from driftloop.devices.errors import BadRequest, StableError, ToolchainMissing, UnknownSerial
from driftloop.devices.identity import Abi
from driftloop.devices.paths import cache_dir
from driftloop.devices.server import private_server
from driftloop.devices.subprocesses import reason, run
from driftloop.devices.virtual import cpus, parts, rootfs
from driftloop.devices.virtual.folder import PhoneFolder, Plan
from driftloop.devices.virtual.state import Hardware, PhoneState, StateFile

# below the ports of outgoing connections, and away from 5555..5585, which adb takes for emulators
_PORTS = range(26000, 32000)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_USER = ("--user", f"--map-user={rootfs.SHELL_ID}", f"--map-group={rootfs.SHELL_ID}")
_NAMESPACES = ("unshare", *_USER, "--keep-caps", "--mount", "--pid", "--fork", "--kill-child")
_START_LIMIT_S = 30.0
_STOP_LIMIT_S = 5.0


@dataclass(frozen=True)
class VirtualPhone:
    """A running virtual phone. pid is its supervisor's; root is its folder on the host."""

    name: str
    abi: Abi
    serial: str
    port: int
    pid: int
    root: Path

    @property
    def state(self) -> StateFile:
        """What the phone says of itself; a test may change it."""
        return StateFile(PhoneFolder(self.root).state)

    def adbd_pid(self) -> int:
        """adbd's pid on this host, of its present life."""
        return int(PhoneFolder(self.root).adbd_pid.read_text())


def available() -> str | None:
    """Why no virtual phone can run on this machine, in one line; None when one can."""
    if not sys.platform.startswith("linux"):
        return "virtual phones need Linux: attach a phone or start an emulator instead"
    if os.uname().machine != "x86_64":
        return f"virtual phones need an x86_64 machine, this is {os.uname().machine}"
    if shutil.which("unshare") is None or shutil.which("setsid") is None:
        return "unshare or setsid is not on this machine: install util-linux"
    try:
        run("making a user namespace", [*_NAMESPACES, "--mount-proc", "true"], 30.0)
    except ToolchainMissing as error:
        return f"{error}: allow user namespaces on this machine, or attach a phone"
    return parts.missing()


def start(
    abi: Abi = "arm64-v8a",
    name: str | None = None,
    storage_mb: int | None = None,
    cpu: str | None = None,
    *,
    progress: parts.Progress | None = None,
) -> VirtualPhone:
    """Starts a phone and returns when its adbd listens. The caller connects adb to `.serial`.

    storage_mb makes /data a file system of that size; cpu names one of `cpus.CPUS` (arm64-v8a
    only). Raises ToolchainMissing when this machine cannot run one, BadRequest when the name is
    taken or a value is not allowed.
    """
    model = _cpu_model(abi, cpu)
    if name is not None and not _NAME.fullmatch(name):
        raise BadRequest(f"{name!r} cannot name a phone: use at most 40 of a-z, 0-9 and -")
    if storage_mb is not None and storage_mb < 1:
        raise BadRequest(f"a phone cannot have {storage_mb} MB: give it at least 1")
    if why := available():
        raise ToolchainMissing(f"virtual phone: {why}")
    found = parts.install(emulator=model is not None, progress=progress)
    with _registry():
        for stale in _folders():
            if not stale.is_alive():
                _remove(stale)
        folder = _new_folder(name)
        plan = Plan(
            **vars(found),
            name=folder.path.name,
            abi=abi,
            port=_free_port(),
            cpu=None if model is None else model.name,
            storage_mb=storage_mb,
        )
        folder.create(plan)
        cores = len(os.sched_getaffinity(0))
        hardware = Hardware(serial=_serial(plan), abi=abi, cores=cores, cpu=model)
        StateFile(folder.state).create(hardware, PhoneState(boot_id=str(uuid.uuid4())))
        _launch(folder)
    return _describe(folder)


@contextmanager
def started(
    abi: Abi = "arm64-v8a", *, progress: parts.Progress | None = None
) -> Iterator[VirtualPhone]:
    """A phone that is started here and stopped when the block ends. Raises as `start` does."""
    phone = start(abi, progress=progress)
    try:
        yield phone
    finally:
        stop(phone.name)


@contextmanager
def at_hand() -> Iterator[list[VirtualPhone]]:
    """The phones that are running; where there are none, one that is `started`."""
    if there := running():
        yield there
        return
    with started() as phone:
        yield [phone]


def running() -> list[VirtualPhone]:
    """The phones that live now, by name."""
    return [_describe(folder) for folder in _folders() if folder.is_ready() and folder.is_alive()]


def stop(name: str) -> None:
    """Ends a phone with every process in it and removes its folder; UnknownSerial without one."""
    with _registry():
        folder = PhoneFolder(_phones() / name)
        if not _NAME.fullmatch(name) or not folder.path.is_dir():
            known = ", ".join(f.path.name for f in _folders() if f.is_alive()) or "none"
            raise UnknownSerial(f"no virtual phone is called {name}; running: {known}")
        serial = _serial(folder.read_plan()) if folder.plan.exists() else None
        _end(folder)
        _remove(folder)
    server = private_server(start=False)
    if serial is not None and server.answers():
        # driftloop's adb server would list it as offline for good
        server.disconnect(serial)


def _cpu_model(abi: Abi, cpu: str | None) -> cpus.Cpu | None:
    if abi == "x86_64":
        if cpu is not None:
            raise BadRequest("a virtual x86_64 phone has this machine's CPU: leave `cpu` out")
        return None
    wanted = cpu or cpus.DEFAULT_CPU
    if wanted not in cpus.CPUS:
        raise BadRequest(f"no virtual CPU is called {wanted}; there are {', '.join(cpus.CPUS)}")
    return cpus.CPUS[wanted]


def _phones() -> Path:
    return cache_dir("virtual", "phones")


def _registry() -> FileLock:
    """Held while phones come and go."""
    return FileLock(cache_dir("virtual") / "phones.lock")


def _folders() -> list[PhoneFolder]:
    return [PhoneFolder(path) for path in sorted(_phones().iterdir()) if path.is_dir()]


def _new_folder(name: str | None) -> PhoneFolder:
    if name is None:
        taken = {folder.path.name for folder in _folders()}
        name = next(n for i in range(1, 1000) if (n := f"phone-{i}") not in taken)
    folder = PhoneFolder(_phones() / name)
    if folder.path.exists():
        raise BadRequest(f"a virtual phone called {name} runs already: stop it or choose another")
    return folder


def _free_port() -> int:
    planned = {folder.read_plan().port for folder in _folders()}
    # seeded by nothing on purpose: two users of one machine should not try the same ports in the
    # same order
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if port in planned:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise StableError(f"no port of {_PORTS.start} to {_PORTS.stop - 1} is free: stop some phones")


def _launch(folder: PhoneFolder) -> None:
    """Starts the supervisor in a session of its own and waits until it is ready."""
    reader, writer = os.pipe()
    supervisor = [sys.executable, "-m", "driftloop.devices.virtual.supervisor"]
    command = ["setsid", "--fork", *_NAMESPACES, *supervisor, str(folder.path), str(writer)]
    modules = [str(Path(devices.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    with folder.supervisor_log.open("w") as log:
        subprocess.run(
            command,
            cwd=folder.path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, modules))},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writer,),
            check=True,
        )
    os.close(writer)
    try:
        # readable at its word, and at the end of file when the supervisor ended without one
        readable, _, _ = select.select([reader], [], [], _START_LIMIT_S)
        ready = bool(readable) and os.read(reader, 16) == b"ready\n"
    finally:
        os.close(reader)
    if not ready:
        why = reason(folder.supervisor_log.read_text())
        _end(folder)
        _remove(folder)
        raise ToolchainMissing(f"the virtual phone did not start: {why}")


def _serial(plan: Plan) -> str:
    return f"127.0.0.1:{plan.port}"


def _describe(folder: PhoneFolder) -> VirtualPhone:
    plan, pid = folder.read_plan(), int(folder.supervisor_pid.read_text())
    return VirtualPhone(plan.name, plan.abi, _serial(plan), plan.port, pid, folder.path)


def _end(folder: PhoneFolder) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not folder.is_alive():
            return
        os.kill(int(folder.supervisor_pid.read_text()), number)
        deadline = time.monotonic() + _STOP_LIMIT_S
        while folder.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
    if folder.is_alive():
        raise StableError(f"the virtual phone {folder.path.name} does not end: see {folder.path}")


def _remove(folder: PhoneFolder) -> None:
    # a test may have taken away its own right to enter a folder of /data
    for path, folders, _files in os.walk(folder.data):
        for name in folders:
            inner = Path(path, name)
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(folder.path)
