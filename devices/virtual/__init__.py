"""A virtual phone: a genuine adbd in a private file system, on loopback only."""

from driftloop.devices.virtual.phone import (
    VirtualPhone,
    at_hand,
    available,
    running,
    start,
    started,
    stop,
)

__all__ = ["VirtualPhone", "at_hand", "available", "running", "start", "started", "stop"]
