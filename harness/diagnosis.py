"""What driftloop can use on this host, and how to get what is missing."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from driftloop.devices import adb, server, virtual
from driftloop.devices.errors import DeviceError
from driftloop.devices.paths import cache_root
from driftloop.devices.runner import build, variants

_EXTRAS = {
    "torch": ("torch", "transformers", "sentencepiece"),
    "desktop": ("llama_cpp_python",),
    "runner": ("ziglang", "cmake", "ninja"),
}
_PURPOSE = {
    "torch": "the torch arm, and building bundles",
    "desktop": "the desktop arms, and building bundles",
    "runner": "building the on-phone runner",
}


State = Literal["ok", "absent", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line. `absent` limits what can be done; `broken` stops every run."""

    subject: str
    state: State
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything in the order in which a run needs it. Starts no phone and builds nothing."""
    system = f"Python {platform.python_version()} on {sys.platform} {platform.machine()}"
    reason = virtual.available()
    virtual_phone = (
        Finding("virtual phone", "absent", reason)
        if reason
        else Finding("virtual phone", "ok", f"can be started; {len(virtual.running())} running")
    )
    return [
        Finding("host", "ok", f"{system}; cache {cache_root()}"),
        *_packages(),
        *_runners(),
        *_adb(),
        virtual_phone,
        *_phones(),
    ]


def _packages() -> Iterator[Finding]:
    for extra, packages in _EXTRAS.items():
        for package in packages:
            try:
                yield Finding(package, "ok", version(package))
            except PackageNotFoundError:
                detail = f"not installed; it is for {_PURPOSE[extra]}"
                yield Finding(package, "absent", detail, f"pip install 'driftloop[{extra}]'")


def _runners() -> Iterator[Finding]:
    for variant in variants.ALL:
        subject = f"runner {variant.name}"
        if built := build.cached(variant):
            yield Finding(subject, "ok", f"built, {built.stat().st_size / 2**20:.1f} MiB")
        else:
            remedy = (
                f"first use builds it, or: python -m driftloop.devices.runner.build {variant.name}"
            )
            yield Finding(subject, "absent", "not built", remedy)


def _adb() -> Iterator[Finding]:
    try:
        path = server.adb_binary()
    except DeviceError as error:
        yield Finding("adb", "broken", str(error), "pip install adbutils")
        return
    yield Finding("adb", "ok", str(path))
    for name, found in (
        ("your adb server", server.user_server()),
        ("driftloop's adb server", server.private_server(start=False)),
    ):
        if found.answers():
            yield Finding(name, "ok", f"{found.host}:{found.port}")
        else:
            yield Finding(name, "absent", "not running")


def _phones() -> Iterator[Finding]:
    try:
        attached = adb.attached()
    except DeviceError as error:
        yield Finding("phones", "broken", str(error))
        return
    if not attached:
        remedy = "plug one in with USB debugging on, or: driftloop phone start"
        yield Finding("phones", "absent", "none attached", remedy)
    for phone in attached:
        remedy, usable = "unlock it, accept this host's key, replug it", phone.state == "device"
        state: State = "ok" if usable else "absent"
        yield Finding(f"phone {phone.address}", state, phone.state, "" if usable else remedy)
