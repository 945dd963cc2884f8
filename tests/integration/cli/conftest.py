"""The command line as users call it: a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.server import PORT_VARIABLE, adb_binary
from fixtures import deep, demo, textures

Driftloop = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The tiny bundle's folder."""
    return demo.bundle(print)


@pytest.fixture(scope="session")
def deep_bundle() -> Path:
    """The folder of the bundle of SmolVLM's depth."""
    return deep.bundle(print)


@pytest.fixture(scope="session")
def driftloop() -> Driftloop:
    """Runs `driftloop ARGS...` to its end; `cache`: with that one in place of driftloop's own."""

    def call(
        *args: object, cwd: Path | None = None, cache: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*args), capture_output=True, text=True, timeout=1200, check=False, cwd=cwd,
            env=under(cache),
        )  # fmt: skip

    return call


def under(cache: Path | None) -> dict[str, str]:
    """The environment of a command that keeps what it computes in `cache`."""
    return {**os.environ} if cache is None else os.environ | {"DRIFTLOOP_CACHE": str(cache)}


def command(*args: object) -> list[str]:
    """The argument list of `driftloop ARGS...`."""
    return [sys.executable, "-m", "harness.cli", *map(str, args)]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of forty-five labelled textures: fifteen sessions."""
    folder = tmp_path_factory.mktemp("pictures")
    textures.save(folder, 45, seed=77)
    return folder / "labels.csv"


@pytest.fixture
def own_adb_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A private adb server that no phone is attached to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv(PORT_VARIABLE, str(port))
    yield
    subprocess.run(
        [str(adb_binary()), "-P", str(port), "kill-server"], check=True, capture_output=True
    )
