"""Virtual phones for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from devices.virtual import parts
from devices.virtual.cpus import Abi
from devices.virtual.phone import VirtualPhone, running, start, stop


@contextmanager
def started(
    abi: Abi = "arm64-v8a", *, progress: parts.Progress | None = None
) -> Iterator[VirtualPhone]:
    """A phone that is started here and stopped when the block ends. Raises as `start` does."""
    phone = start(abi, progress=progress)
    try:
        yield phone
    finally:
        stop(phone.name)


@contextmanager
def at_hand() -> Iterator[list[VirtualPhone]]:
    """The phones that are running; where there are none, one that is `started`."""
    if there := running():
        yield there
        return
    with started() as phone:
        yield [phone]
