"""Cold deploy against `adb push`, and a warm deploy of 500 MB."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import tempfile
from pathlib import Path

from driftloop.devices import adb, deploy, virtual
from driftloop.devices.deploy import LocalBlob
from driftloop.devices.phone import Phone
from driftloop.devices.server import adb_binary, private_server
from tests.bench.ratios import Row, in_turn, timed_s

COLD_MIB = 200
WARM_MIB = 500
ROUNDS = 5


def rows() -> list[Row]:
    """Both measurements on an x86_64 virtual phone of its own."""
    started = virtual.start("x86_64")
    try:
        phone = adb.find(started.serial)
        with tempfile.TemporaryDirectory() as folder:
            return [_cold(phone, Path(folder)), _warm(phone, Path(folder))]
    finally:
        virtual.stop(started.name)


def _cold(phone: Phone, folder: Path) -> Row:
    local = folder / "cold.bin"
    command = [str(adb_binary()), "-P", str(private_server().port), "-s", phone.serial]

    def ours() -> float:
        blob = _random_blob(local, COLD_MIB)
        took_s = timed_s(lambda: deploy.deploy(phone, [blob]))
        deploy.prune(phone, set())
        return took_s

    def theirs() -> float:
        _random_blob(local, COLD_MIB)
        push = [*command, "push", str(local), "/data/local/tmp/pushed.bin"]
        took_s = timed_s(lambda: subprocess.run(push, check=True, capture_output=True))
        phone.shell("rm /data/local/tmp/pushed.bin")
        return took_s

    ours_s, theirs_s, ratio = in_turn(ours, theirs, ROUNDS)
    throughput = 1 / ratio
    return Row(
        f"cold deploy of {COLD_MIB} MiB, verified, against adb push",
        f"{COLD_MIB / ours_s:.0f} to {COLD_MIB / theirs_s:.0f} MiB/s, {throughput:.2f} x",
        ">= 0.95 x",
        throughput >= 0.95,
    )


def _warm(phone: Phone, folder: Path) -> Row:
    blob = _random_blob(folder / "warm.bin", WARM_MIB)
    deploy.deploy(phone, [blob])
    took_s = timed_s(lambda: deploy.deploy(phone, [blob]))
    return Row(f"warm deploy of {WARM_MIB} MiB", f"{took_s:.3f} s", "<= 1 s", took_s <= 1)


def _random_blob(path: Path, mib: int) -> LocalBlob:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            block = secrets.token_bytes(2**20)
            file.write(block)
            digest.update(block)
    return LocalBlob(path, digest.hexdigest())
