"""From what a user names to phones held: sets, conditions, what is left out, and waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driftloop.devices import adb
from driftloop.devices.errors import BadRequest, DeviceError, NoPhone, PhoneBusy
from driftloop.devices.phone import Phone
from driftloop.devices.server import Server
from driftloop.devices.virtual import VirtualPhone
from driftloop.harness.running.phones import held
from tests.integration.devices.conftest import NeverAccepts, listening


@pytest.fixture
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, x86_phone: VirtualPhone) -> None:
    """A project whose driftloop.toml gives the fast phone a tag."""
    (tmp_path / "driftloop.toml").write_text(f'[tags]\nfast = ["{x86_phone.serial}"]\n')
    monkeypatch.chdir(tmp_path)


@contextmanager
def unauthorized(server: Server) -> Iterator[str]:
    """The address of an attached phone whose owner has not agreed."""
    with listening(NeverAccepts) as address:
        threading.Thread(target=server.connect, args=(address,), daemon=True).start()
        while address not in server.states():
            time.sleep(0.01)
        yield address
        server.disconnect(address)


@pytest.mark.parametrize(
    "name",
    ["abi=x86_64", "tag=fast", "abi=x86*,tag=fast", "any:1,abi=x86_64", "model=*,abi=x86_64"],
)
def test_a_set_is_the_phones_that_meet_every_condition(
    x86_phone: VirtualPhone, arm64_phone: VirtualPhone, in_project: None, name: str
) -> None:
    with held([name, x86_phone.serial]) as found:
        assert [phone.serial for phone in found.phones] == [x86_phone.serial]
        assert found.left_out == ()


def test_a_phone_of_a_set_that_cannot_be_used_is_left_out_with_its_reason(
    server: Server, x86_phone: VirtualPhone, phone: Phone
) -> None:
    with unauthorized(server) as address, held(["all"]) as found:
        assert x86_phone.serial in [one.serial for one in found.phones]
        (missed,) = found.left_out
        assert (missed.phone, missed.kind) == (address, "Unauthorized")
        assert "accept" in missed.detail
    with phone.lease(), held(["all"], at_least=0) as found:
        (missed,) = found.left_out
        assert (missed.phone, missed.kind) == (x86_phone.serial, "PhoneBusy")


@pytest.mark.parametrize(
    ("names", "at_least", "kind", "words"),
    [
        (["abi=x86_64"], 9, NoPhone, "1 of at least 9 phones"),
        (["any:9"], 1, NoPhone, "only . such phones can be used"),
        (["model=Nexus*"], 1, NoPhone, "no such phone is attached"),
        (["any:no"], 1, BadRequest, "a number from 1 on"),
        (["tag=slow"], 1, BadRequest, "no such tag"),
    ],
)
def test_too_few_phones_end_the_run_before_it_begins(
    x86_phone: VirtualPhone,
    in_project: None,
    names: list[str],
    at_least: int,
    kind: type[DeviceError],
    words: str,
) -> None:
    adb.find(x86_phone.serial)
    with pytest.raises(kind, match=words), held(names, at_least=at_least):
        pass


def test_a_phone_that_is_in_use_is_waited_for(phone: Phone) -> None:
    with phone.lease(), pytest.raises(PhoneBusy, match="--wait"), held([phone.serial]):
        pass
    lease = phone.lease()
    lease.__enter__()
    threading.Timer(0.8, lambda: lease.__exit__(None, None, None)).start()
    began = time.monotonic()
    with held([phone.serial], wait_s=30) as found:
        assert time.monotonic() - began > 0.7
        assert [one.serial for one in found.phones] == [phone.serial]
