"""What all tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from driftloop.harness.dataset import Dataset


@pytest.fixture(scope="session", autouse=True)
def _own_cores() -> None:
    """Gives each worker of pytest-xdist cores of its own, and all that it starts.

    ggml's threads wait for each other by spinning: two tests on the same two cores take longer
    side by side than one after the other.
    """
    if not hasattr(os, "sched_setaffinity"):
        return  # only Linux has it
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[worker % len(cores) :: workers])


@pytest.fixture(scope="session")
def little_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Ten textures to train on and five held out. Read only: copy to damage."""
    from tests import little_dataset  # here, since most tests need none of what it imports

    return little_dataset.made(tmp_path_factory.mktemp("dataset"))
