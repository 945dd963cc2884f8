"""Finding phones: what is attached to the user's adb server and to driftloop's own."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from driftloop.devices.errors import (
    DeviceError,
    NoPhone,
    PermissionDenied,
    PhoneOffline,
    UnknownSerial,
)
from driftloop.devices.phone import Phone, hardware_serial
from driftloop.devices.server import Server, private_server, user_server
from driftloop.devices.transport import unusable

_SETTLE_LIMIT_S = 5.0
_SETTLE_STEP_S = 0.1
_UNSETTLED = ("connecting", "authorizing", "offline")
"""States a phone passes through while adb greets it; only if they last are they a failure."""


@dataclass(frozen=True)
class AttachedPhone:
    """A line of `adb devices`: one connection to a phone, which may have several.

    `state` is adb's word, and only `device` can be used.
    """

    address: str
    state: str
    server: Server


def attached() -> list[AttachedPhone]:
    """Every connection that a server of this host lists, in any state, ordered by name.

    The user's server is asked if it runs. driftloop's own is started only where the user has none,
    since nothing would look for phones otherwise. Raises ToolchainMissing when there is no adb.
    """
    own = user_server()
    servers = [own] if own.answers() else []
    private = private_server(start=not servers)
    if private.answers():
        servers.append(private)
    found: dict[str, AttachedPhone] = {}
    for server in servers:
        for address, state in server.states().items():
            if address not in found or found[address].state != "device":
                found[address] = AttachedPhone(address, state, server)
    return [found[address] for address in sorted(found)]


def find(name: str) -> Phone:
    """The phone of that serial, or behind that connection. A HOST:PORT is connected if need be.

    Raises:
        UnknownSerial: no such phone.
        Unauthorized, PhoneOffline, PermissionDenied: it is there but cannot be used.
    """
    deadline = time.monotonic() + _SETTLE_LIMIT_S
    while True:
        there = attached()
        for one in there:
            if one.address == name:
                return _usable(one)
        if (phone := _of_serial(name, there)) is not None:
            return phone
        if not _is_address(name) or time.monotonic() >= deadline:
            others = ", ".join(one.address for one in there) or "none"
            raise UnknownSerial(f"{name}: no phone of this serial is attached (attached: {others})")
        # adbd may be between two lives: init starts it again a moment after it died.
        private_server().connect(name)
        time.sleep(_SETTLE_STEP_S)


def find_all() -> tuple[list[Phone], dict[str, DeviceError]]:
    """Every attached phone that can be used, once each; and why each other connection cannot.

    Raises:
        NoPhone: nothing is attached.
    """
    there = attached()
    if not there:
        raise NoPhone(
            "no phone is attached; connect one with USB debugging on, "
            "or start a virtual one with `driftloop phone start`"
        )
    with ThreadPoolExecutor(len(there)) as pool:
        found = dict(zip(there, pool.map(_usable_or_why, there), strict=True))
    usable = [one for one in found.values() if isinstance(one, Phone)]
    refused = {one.address: why for one, why in found.items() if isinstance(why, DeviceError)}
    return _each_once(usable), refused


def _of_serial(serial: str, there: Iterable[AttachedPhone]) -> Phone | None:
    """The phone that calls itself so, over its better connection."""
    usable = [_usable_or_why(one) for one in there if one.state == "device"]
    own = [one for one in usable if isinstance(one, Phone) and one.serial == serial]
    return next(iter(_each_once(own)), None)


def _each_once(phones: Iterable[Phone]) -> list[Phone]:
    """One `Phone` for each serial: over USB where it has that, else Wi-Fi; ordered by serial."""
    best: dict[str, Phone] = {}
    for phone in sorted(phones, key=lambda one: ("_adb-tls" in one.address, ":" in one.address)):
        best.setdefault(phone.serial, phone)
    return [best[serial] for serial in sorted(best)]


def _usable_or_why(one: AttachedPhone) -> Phone | DeviceError:
    try:
        return _usable(one)
    except DeviceError as error:
        return error


def _usable(one: AttachedPhone) -> Phone:
    """The phone once adb calls it a `device`; a state it only passes through gets some seconds."""
    address, state = one.address, one.state
    deadline = time.monotonic() + _SETTLE_LIMIT_S
    while state in _UNSETTLED and time.monotonic() < deadline:
        time.sleep(_SETTLE_STEP_S)
        states = one.server.states()
        if address not in states and _is_address(address):
            one.server.connect(address)
        state = states.get(address, "offline")
    if state == "device":
        return Phone(one.server, address, hardware_serial(one.server, address))
    if state.startswith("no permissions"):
        raise PermissionDenied(
            f"{address}: this user may not open the phone's USB device; "
            f"add udev rules for it (package android-sdk-platform-tools-common) and replug it"
        )
    in_another_mode = f"{address}: the phone is in state {state!r}; boot it into Android"
    raise unusable(address, state) or PhoneOffline(in_another_mode)


def _is_address(name: str) -> bool:
    host, colon, port = name.rpartition(":")
    return bool(host and colon) and port.isdigit()
