"""A virtual phone: a genuine adbd in a private file system, on loopback only."""

from devices.virtual.phone import VirtualPhone, available, running, start, stop

__all__ = ["VirtualPhone", "available", "running", "start", "stop"]
