"""Finding phones: what is attached to the user's adb server and to driftloop's own."""

from __future__ import annotations

import time
from dataclasses import dataclass

from driftloop.devices.errors import NoPhone, PermissionDenied, PhoneOffline, UnknownSerial
from driftloop.devices.phone import Phone
from driftloop.devices.server import Server, private_server, user_server
from driftloop.devices.transport import unusable

_SETTLE_LIMIT_S = 5.0
_SETTLE_STEP_S = 0.1
_UNSETTLED = ("connecting", "authorizing", "offline")
"""States a phone passes through while adb greets it; only if they last are they a failure."""


@dataclass(frozen=True)
class AttachedPhone:
    """A line of `adb devices`: `state` is adb's word, and only `device` can be used."""

    serial: str
    state: str
    server: Server


def attached() -> list[AttachedPhone]:
    """Every phone that a server of this host lists, in any state, ordered by serial.

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
        for serial, state in server.states().items():
            if serial not in found or found[serial].state != "device":
                found[serial] = AttachedPhone(serial, state, server)
    return [found[serial] for serial in sorted(found)]


def find(serial: str) -> Phone:
    """The attached phone of that serial. A HOST:PORT that is not attached yet is connected.

    Raises:
        UnknownSerial: no such phone.
        Unauthorized, PhoneOffline, PermissionDenied: it is there but cannot be used.
    """
    phones = {phone.serial: phone for phone in attached()}
    deadline = time.monotonic() + _SETTLE_LIMIT_S
    while serial not in phones and _is_address(serial) and time.monotonic() < deadline:
        # adbd may be between two lives: init starts it again a moment after it died.
        private_server().connect(serial)
        phones = {phone.serial: phone for phone in attached()}
        if serial not in phones:
            time.sleep(_SETTLE_STEP_S)
    if serial not in phones:
        others = ", ".join(phones) or "none"
        raise UnknownSerial(f"{serial}: no phone of this serial is attached (attached: {others})")
    return _usable(phones[serial])


def find_all() -> list[Phone]:
    """Every attached phone; NoPhone when there is none. Raises as `find` if one cannot be used."""
    phones = attached()
    if not phones:
        raise NoPhone(
            "no phone is attached; connect one with USB debugging on, "
            "or start a virtual one with `driftloop phone start`"
        )
    return [_usable(phone) for phone in phones]


def _usable(phone: AttachedPhone) -> Phone:
    """The phone once adb calls it a `device`; a state it only passes through gets some seconds."""
    serial, state = phone.serial, phone.state
    deadline = time.monotonic() + _SETTLE_LIMIT_S
    while state in _UNSETTLED and time.monotonic() < deadline:
        time.sleep(_SETTLE_STEP_S)
        states = phone.server.states()
        if serial not in states and _is_address(serial):
            phone.server.connect(serial)
        state = states.get(serial, "offline")
    if state == "device":
        return Phone(phone.server, serial)
    if state.startswith("no permissions"):
        raise PermissionDenied(
            f"{serial}: this user may not open the phone's USB device; "
            f"add udev rules for it (package android-sdk-platform-tools-common) and replug it"
        )
    in_another_mode = f"{serial}: the phone is in state {state!r}; boot it into Android"
    raise unusable(serial, state) or PhoneOffline(in_another_mode)


def _is_address(serial: str) -> bool:
    host, colon, port = serial.rpartition(":")
    return bool(host and colon) and port.isdigit()
