"""The first process of a virtual phone: mounts it and keeps adbd running, as Android's init does.

Runs as `python -m driftloop.devices.virtual.supervisor FOLDER READY_FD` inside fresh user, mount
and process namespaces. As process 1 of its namespace its end, however it comes, makes the
kernel end every process of the phone.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from driftloop.devices.virtual import rootfs
from driftloop.devices.virtual.folder import PhoneFolder, Plan

_RESTART_DELAY_S = 0.2
_TOO_SHORT_S = 1.0
_MOST_SHORT_LIVES = 20
_LISTEN_LIMIT_S = 15.0


def main(arguments: list[str]) -> NoReturn:
    """Runs one phone until SIGTERM."""
    folder, ready_fd = PhoneFolder(Path(arguments[0])), int(arguments[1])
    os.set_inheritable(ready_fd, False)
    # held for as long as this process lives: how others tell a live phone from a stale folder
    alive = folder.alive.open("w")
    fcntl.flock(alive, fcntl.LOCK_EX)
    # /proc is still the host's, so this is the number by which the host knows this process
    folder.supervisor_pid.write_text(str(Path("/proc/self").readlink()))
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    plan = folder.read_plan()
    last_capability = rootfs.last_capability()
    host_proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    rootfs.build(folder.root, plan, folder.state.parent, folder.data, plan.storage_mb)

    def start_adbd() -> int:
        return _start_adbd(folder, plan, host_proc, last_capability)

    first = start_adbd()
    if not _wait_until_listening(plan.port):
        sys.exit(f"adbd does not listen on port {plan.port}; see adbd.log")
    os.write(ready_fd, b"ready\n")
    os.close(ready_fd)
    _keep_alive(first, start_adbd)


def _start_adbd(folder: PhoneFolder, plan: Plan, host_proc: int, last_capability: int) -> int:
    """Starts adbd inside the phone; returns its pid in this namespace."""

    def enter_phone() -> None:
        folder.write_adbd_pid(int(os.readlink("self", dir_fd=host_proc)))
        os.chroot(folder.root)
        os.chdir("/data/local/tmp")
        rootfs.drop_capabilities(last_capability)

    with folder.adbd_log.open("ab") as log:
        return subprocess.Popen(
            [rootfs.ADBD],
            env=plan.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            restore_signals=False,
            umask=0o022,
            preexec_fn=enter_phone,
        ).pid


def _wait_until_listening(port: int) -> bool:
    deadline = time.monotonic() + _LISTEN_LIMIT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.02)
    return False


def _keep_alive(adbd: int, start_adbd: Callable[[], int]) -> NoReturn:
    """Reaps whatever ends in the phone and starts adbd again; gives up when it never lives."""
    started, short_lives = time.monotonic(), 0
    while short_lives < _MOST_SHORT_LIVES:
        ended, _status = os.wait()
        if ended != adbd:
            continue
        short_lives = short_lives + 1 if time.monotonic() - started < _TOO_SHORT_S else 0
        time.sleep(_RESTART_DELAY_S)
        adbd, started = start_adbd(), time.monotonic()
    sys.exit("adbd keeps dying as soon as it starts; see adbd.log")


if __name__ == "__main__":
    main(sys.argv[1:])
