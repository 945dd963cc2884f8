"""The command line as users call it: a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driftloop.devices.server import PORT_VARIABLE, adb_binary
from driftloop.fixtures import deep, demo, textures

Done = subprocess.CompletedProcess[str]


class Driftloop:
    """Runs `driftloop ARGS...` to its end."""

    def __call__(self, *args: object, cwd: Path | None = None, cache: Path | None = None) -> Done:
        """What became of it; `cache`: with that one in place of driftloop's own."""
        return subprocess.run(
            command(*args), capture_output=True, text=True, timeout=1200, check=False, cwd=cwd,
            env=under(cache),
        )  # fmt: skip

    def ok(self, *args: object, status: int | None = 0, cwd: Path | None = None) -> Done:
        """The same, with that exit status (None: any) and no traceback."""
        done = self(*args, cwd=cwd)
        assert status in (None, done.returncode), done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *args: object, status: int | None = 0, cwd: Path | None = None) -> Any:  # noqa: ANN401
        """The document that `driftloop ARGS... --json` prints, with that exit status."""
        return json.loads(self.ok(*args, "--json", status=status, cwd=cwd).stdout)


@pytest.fixture(scope="session")
def driftloop() -> Driftloop:
    """The command."""
    return Driftloop()


def command(*args: object) -> list[str]:
    """The argument list of `driftloop ARGS...`."""
    return [sys.executable, "-m", "driftloop", *map(str, args)]


def under(cache: Path | None) -> dict[str, str]:
    """The environment of a command that keeps what it computes in `cache`."""
    return {**os.environ} if cache is None else os.environ | {"DRIFTLOOP_CACHE": str(cache)}


def one_line(done: Done, fragment: str) -> str:
    """The only line on stderr, which has `fragment`."""
    (line,) = done.stderr.strip().splitlines()
    assert fragment in line
    return line


def width(text: str) -> int:
    """The longest line's."""
    return max(map(len, text.splitlines()))


def read_json(path: Path) -> Any:  # noqa: ANN401
    """The document in a file."""
    return json.loads(path.read_text())


def observations(run: Path) -> list[dict[str, Any]]:
    """All that a run folder holds."""
    return [json.loads(line) for line in (run / "observations.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The tiny bundle's folder."""
    return demo.bundle(print)


@pytest.fixture(scope="session")
def deep_bundle() -> Path:
    """The folder of the bundle of SmolVLM's depth."""
    return deep.bundle(print)


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
