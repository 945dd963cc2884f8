"""Starting and stopping: what is refused before anything runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from driftloop.devices import virtual
from driftloop.devices.errors import BadRequest, ToolchainMissing, UnknownSerial
from driftloop.devices.virtual.folder import PhoneFolder, Plan
from driftloop.devices.virtual.parts import Parts


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, so that neither parts nor phones of this host are touched."""
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(({"name": name}, "cannot name a phone") for name in ("", "Two words", "../up", "-a")),
        ({"name": "x" * 41}, "cannot name a phone"),
        ({"cpu": "z80"}, "cortex-a53, cortex-a76, cortex-a710"),
        ({"abi": "x86_64", "cpu": "cortex-a76"}, "this machine's CPU"),
        ({"storage_mb": 0}, "0 MB"),
    ],
)
def test_what_no_phone_can_have_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(message)):
        virtual.start(**settings)


@pytest.mark.parametrize("name", ["nobody", "../phones"])
def test_stopping_what_does_not_run_names_what_does(name: str) -> None:
    with pytest.raises(UnknownSerial, match="running: none"):
        virtual.stop(name)


def test_a_stale_folder_is_not_listed_and_can_be_stopped(own_cache: Path) -> None:
    stale = PhoneFolder(own_cache / "virtual" / "phones" / "stale")
    parts = Parts(Path("/p"), Path("/b"), Path("/s"), None)
    stale.create(Plan(**vars(parts), name="stale", abi="x86_64", port=1, cpu=None, storage_mb=None))
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
