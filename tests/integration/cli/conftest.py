"""The command line as users call it: a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import demo, textures

Driftloop = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The tiny bundle's folder."""
    return demo.bundle(print)


@pytest.fixture(scope="session")
def driftloop() -> Driftloop:
    """Runs `driftloop ARGS...` to its end."""

    def call(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*args), capture_output=True, text=True, timeout=400, check=False, cwd=cwd
        )

    return call


def command(*args: object) -> list[str]:
    """The argument list of `driftloop ARGS...`."""
    return [sys.executable, "-m", "harness.cli", *map(str, args)]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of forty-five labelled textures: fifteen sessions."""
    folder = tmp_path_factory.mktemp("pictures")
    textures.save(folder, 45, seed=77)
    return folder / "labels.csv"
