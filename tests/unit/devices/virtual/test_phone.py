"""Starting and stopping: what is refused before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devices import virtual
from devices.errors import BadRequest, ToolchainMissing, UnknownSerial
from devices.virtual.folder import PhoneFolder, Plan


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, so that neither parts nor phones of this host are touched."""
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["", "Two words", "../up", "-a", "x" * 41])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="cannot name a phone"):
        virtual.start(name=name)


def test_an_unknown_cpu_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadRequest, match=re.escape("cortex-a53, cortex-a76, cortex-a710")):
        virtual.start(cpu="z80")


def test_an_x86_64_phone_takes_no_cpu() -> None:
    with pytest.raises(BadRequest, match="this machine's CPU"):
        virtual.start("x86_64", cpu="cortex-a76")


def test_a_phone_without_storage_is_refused() -> None:
    with pytest.raises(BadRequest, match="0 MB"):
        virtual.start(storage_mb=0)


@pytest.mark.parametrize("name", ["nobody", "../phones"])
def test_stopping_what_does_not_run_names_what_does(name: str) -> None:
    with pytest.raises(UnknownSerial, match="running: none"):
        virtual.stop(name)


def test_a_stale_folder_is_not_listed_and_can_be_stopped(own_cache: Path) -> None:
    stale = PhoneFolder(own_cache / "virtual" / "phones" / "stale")
    stale.create(Plan("stale", "x86_64", 26002, None, None, "/p", "/b", "/s", None))
    stale.supervisor_pid.write_text("1")
    stale.write_adbd_pid(1)
    assert virtual.running() == []
    virtual.stop("stale")
    assert not stale.path.exists()


def test_without_its_tools_the_machine_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = virtual.available()
    assert reason is not None
    assert "\n" not in reason
    with pytest.raises(ToolchainMissing, match=re.escape(reason)):
        virtual.start()
