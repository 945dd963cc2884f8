"""A virtual phone: a genuine adbd in a private file system, on loopback only."""

from devices.virtual.loan import at_hand, started
from devices.virtual.phone import VirtualPhone, available, running, start, stop

__all__ = ["VirtualPhone", "at_hand", "available", "running", "start", "started", "stop"]
