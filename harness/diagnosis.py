"""What this host has of all that driftloop can use, and what to do about the rest."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pydantic import BaseModel, ConfigDict

from devices import adb, server, virtual
from devices.errors import DeviceError
from devices.paths import cache_root
from devices.runner import build, variants

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


class Finding(BaseModel):
    """One line. `absent` limits what can be done; `broken` stops every run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    state: Literal["ok", "absent", "broken"]
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything in the order in which a run needs it. Starts no phone and builds nothing."""
    return [_host(), *_packages(), *_runners(), *_adb(), _virtual_phones(), *_phones()]


def _host() -> Finding:
    return Finding(
        subject="host",
        state="ok",
        detail=f"Python {platform.python_version()} on {sys.platform} {platform.machine()}; "
        f"cache {cache_root()}",
    )


def _packages() -> Iterator[Finding]:
    for extra, packages in _EXTRAS.items():
        for package in packages:
            try:
                yield Finding(subject=package, state="ok", detail=version(package))
            except PackageNotFoundError:
                yield Finding(
                    subject=package,
                    state="absent",
                    detail=f"not installed; it is for {_PURPOSE[extra]}",
                    remedy=f"pip install 'driftloop[{extra}]'",
                )


def _runners() -> Iterator[Finding]:
    for variant in variants.ALL:
        built = build.cached(variant)
        yield Finding(
            subject=f"runner {variant.name}",
            state="ok" if built else "absent",
            detail=f"built, {built.stat().st_size / 2**20:.1f} MiB" if built else "not built",
            remedy=""
            if built
            else f"first use builds it, or: python -m devices.runner.build {variant.name}",
        )


def _adb() -> Iterator[Finding]:
    try:
        path = server.adb_binary()
    except DeviceError as error:
        yield Finding(
            subject="adb", state="broken", detail=str(error), remedy="pip install adbutils"
        )
        return
    yield Finding(subject="adb", state="ok", detail=str(path))
    for name, found in (
        ("your adb server", server.user_server()),
        ("driftloop's adb server", server.private_server(start=False)),
    ):
        answers = found.answers()
        yield Finding(
            subject=name,
            state="ok" if answers else "absent",
            detail=f"{found.host}:{found.port}" if answers else "not running",
        )


def _virtual_phones() -> Finding:
    reason = virtual.available()
    return Finding(
        subject="virtual phone",
        state="absent" if reason else "ok",
        detail=reason or f"can be started; {len(virtual.running())} running",
    )


def _phones() -> Iterator[Finding]:
    try:
        attached = adb.attached()
    except DeviceError as error:
        yield Finding(subject="phones", state="broken", detail=str(error))
        return
    if not attached:
        yield Finding(
            subject="phones",
            state="absent",
            detail="none attached",
            remedy="plug one in with USB debugging on, or: driftloop phone start",
        )
    for phone in attached:
        usable = phone.state == "device"
        yield Finding(
            subject=f"phone {phone.serial}",
            state="ok" if usable else "absent",
            detail=phone.state,
            remedy="" if usable else "unlock it, accept this host's key, replug it",
        )
