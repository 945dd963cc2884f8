"""Content-addressed files on a genuine adbd."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from driftloop.devices import adb, virtual
from driftloop.devices.deploy import REMOTE_BLOBS, LocalBlob, deploy, prune
from driftloop.devices.errors import PermissionDenied, StableError, StorageFull, TransientError
from driftloop.devices.hashing import file_sha256
from driftloop.devices.phone import Phone
from driftloop.devices.server import Server
from driftloop.devices.virtual import VirtualPhone, parts
from driftloop.devices.virtual.folder import PhoneFolder


@pytest.fixture(autouse=True)
def _no_blobs(phone: Phone) -> None:
    phone.shell(f"rm -rf {REMOTE_BLOBS}")


@pytest.fixture
def small_phone(server: Server) -> Iterator[Phone]:
    """A phone with 24 MiB of storage, for this test alone."""
    if reason := virtual.available():
        pytest.skip(reason)
    machine = virtual.start("x86_64", storage_mb=24)
    try:
        yield adb.find(machine.serial)
    finally:
        virtual.stop(machine.name)


def blob(folder: Path, size: int, seed: int) -> LocalBlob:
    path = folder / f"blob-{seed}"
    path.write_bytes(numpy.random.default_rng(seed).bytes(size))
    return LocalBlob(path, file_sha256(path))


def changed(phone: Phone) -> dict[str, str]:
    """Inode by name: another inode is another push."""
    printed = phone.shell(f"cd {REMOTE_BLOBS} && stat -c '%n %i' *", check=False).stdout
    return dict(line.split() for line in printed.splitlines())


def program(folder: Path, *, executable: bool = True) -> LocalBlob:
    script = folder / "script"
    script.write_text("#!/system/bin/sh\necho ran\n")
    return LocalBlob(script, file_sha256(script), executable)


def test_files_arrive_under_their_hash_and_programs_can_run(phone: Phone, tmp_path: Path) -> None:
    files = [program(tmp_path), *(blob(tmp_path, size, size) for size in (0, 1, 70_000, 9_000_000))]
    placed = deploy(phone, files)
    assert placed == {file.sha256: f"{REMOTE_BLOBS}/{file.sha256}" for file in files}
    for file in files:
        assert phone.shell(f"sha256sum <{placed[file.sha256]}").stdout.split()[0] == file.sha256
    assert phone.shell(placed[files[0].sha256]).stdout == "ran\n"


def test_nothing_is_pushed_twice(phone: Phone, tmp_path: Path) -> None:
    first, second = blob(tmp_path, 100_000, 1), blob(tmp_path, 200_000, 2)
    steps: list[tuple[int, int]] = []
    deploy(phone, [first])
    before = changed(phone)
    deploy(phone, [first, second, second], progress=lambda done, all_: steps.append((done, all_)))
    assert changed(phone)[first.sha256] == before[first.sha256]
    assert steps[-1] == (200_000, 200_000)
    steps.clear()
    deploy(phone, [second, first], progress=lambda done, all_: steps.append((done, all_)))
    assert steps == []


def test_a_blob_that_became_a_program_can_run(phone: Phone, tmp_path: Path) -> None:
    deploy(phone, [program(tmp_path, executable=False)])
    (path,) = deploy(phone, [program(tmp_path)]).values()
    assert phone.shell(path).stdout == "ran\n"


def test_many_small_files_arrive_together(phone: Phone, tmp_path: Path) -> None:
    files = [blob(tmp_path, 50_000, seed) for seed in range(120)]
    deploy(phone, files)
    assert set(changed(phone)) == {file.sha256 for file in files}


def test_what_is_there_is_not_even_hashed_again(phone: Phone, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as out:
        out.truncate(500_000_000)
    no_hash_of_it = "0" * 64
    there = f"{REMOTE_BLOBS}/{no_hash_of_it}"
    phone.shell(f"mkdir -p {REMOTE_BLOBS} && truncate -s 500000000 {there}")
    assert deploy(phone, [LocalBlob(large, no_hash_of_it)]) == {no_hash_of_it: there}


@pytest.mark.parametrize("size", [1000, 20_000_000], ids=["small", "hashed while it arrives"])
def test_a_file_that_is_not_what_its_hash_says_never_gets_its_name(
    phone: Phone, tmp_path: Path, size: int
) -> None:
    good, bad = blob(tmp_path, size, 1), blob(tmp_path, size, 2)
    bad.path.write_bytes(bytes(size))
    with pytest.raises(StableError, match=bad.sha256) as caught:
        deploy(phone, [good, bad])
    assert "\n" not in str(caught.value)
    assert set(changed(phone)) == {good.sha256}


def test_a_push_that_was_cut_off_is_never_taken_for_whole(
    phone: Phone, x86_phone: VirtualPhone, tmp_path: Path
) -> None:
    file = blob(tmp_path, 150_000_000, 3)
    threading.Timer(0.05, lambda: os.kill(x86_phone.adbd_pid(), signal.SIGKILL)).start()
    with pytest.raises(TransientError):
        deploy(phone, [file])
    phone.reconnect(timeout_s=30)
    assert file.sha256 not in changed(phone)
    path = deploy(phone, [file])[file.sha256]
    assert phone.shell(f"stat -c %s {path}").stdout == "150000000\n"
    assert set(changed(phone)) == {file.sha256}


def test_missing_space_is_told_before_anything_is_sent_and_during_a_push(
    small_phone: Phone, tmp_path: Path
) -> None:
    file = blob(tmp_path, 40_000_000, 1)
    with pytest.raises(StorageFull, match=r"38\.1 MiB needed.* free") as caught:
        deploy(small_phone, [file])
    assert "\n" not in str(caught.value)
    assert changed(small_phone) == {}
    assert 20 * 2**20 < small_phone.free_bytes() <= 24 * 2**20
    with pytest.raises(StorageFull) as caught:
        small_phone.push(file.path, "/data/local/tmp/too-large")
    assert "\n" not in str(caught.value)
    assert small_phone.shell("echo fine").stdout == "fine\n"


def test_a_folder_without_permission_is_told(phone: Phone, tmp_path: Path) -> None:
    phone.shell(f"mkdir -p {REMOTE_BLOBS} && chmod 0 {REMOTE_BLOBS}")
    try:
        with pytest.raises(PermissionDenied, match=REMOTE_BLOBS) as caught:
            deploy(phone, [blob(tmp_path, 10, 1)])
        assert "\n" not in str(caught.value)
    finally:
        phone.shell(f"chmod 755 {REMOTE_BLOBS}")


def test_pruning_keeps_what_is_named_and_says_what_it_freed(phone: Phone, tmp_path: Path) -> None:
    keep, drop = blob(tmp_path, 1000, 1), blob(tmp_path, 2000, 2)
    deploy(phone, [keep, drop])
    phone.push(b"half", f"{REMOTE_BLOBS}/{'1' * 64}.part")
    assert prune(phone, {keep.sha256}) == 2004
    assert set(changed(phone)) == {keep.sha256}
    assert prune(phone, {keep.sha256}) == 0


def test_forty_thousand_blobs_are_listed_and_pruned(
    phone: Phone, x86_phone: VirtualPhone, tmp_path: Path
) -> None:
    file = blob(tmp_path, 1000, 1)
    deploy(phone, [file])
    here = PhoneFolder(x86_phone.root).data / REMOTE_BLOBS.removeprefix("/data/")
    for number in range(40_000):
        (here / f"{number:064d}").touch()
    told: list[tuple[int, int]] = []
    deploy(phone, [file], progress=lambda done, all_: told.append((done, all_)))
    assert told == []
    prune(phone, {file.sha256})
    assert [path.name for path in here.iterdir()] == [file.sha256]


@contextmanager
def phone_without(
    tools: set[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Phone]:
    """A phone whose shell lacks some tools, as a vendor may leave them out."""
    installed = parts.install(emulator=False)
    system_bin = folder / "system-bin"
    system_bin.mkdir()
    for tool in installed.system_bin.iterdir():
        if tool.name in tools:
            continue
        if tool.is_symlink():
            (system_bin / tool.name).symlink_to(tool.readlink())
        else:
            (system_bin / tool.name).write_bytes(tool.read_bytes())
            (system_bin / tool.name).chmod(0o755)
    bare = replace(installed, system_bin=system_bin)
    monkeypatch.setattr(parts, "install", lambda **_: bare)
    machine = virtual.start("x86_64")
    try:
        yield adb.find(machine.serial)
    finally:
        virtual.stop(machine.name)


def test_a_missing_tool_is_named_before_anything_is_sent(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with phone_without({"sha256sum", "setsid"}, tmp_path, monkeypatch) as phone:
        with pytest.raises(StableError, match="its shell has no sha256sum, setsid") as caught:
            deploy(phone, [blob(tmp_path, 1000, 1)])
        assert "\n" not in str(caught.value)
        assert phone.shell(f"ls {REMOTE_BLOBS}").stdout == ""


def test_without_dd_and_stat_a_large_file_is_hashed_after_it_has_arrived(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with phone_without({"dd", "stat"}, tmp_path, monkeypatch) as phone:
        file = blob(tmp_path, 20_000_000, 1)
        (path,) = deploy(phone, [file]).values()
        assert phone.shell(f"sha256sum <{path}").stdout.startswith(file.sha256)
