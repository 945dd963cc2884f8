"""From what a user names to phones held for the length of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from driftloop.devices import adb, virtual
from driftloop.devices.phone import Phone
from driftloop.harness.records.record import PhoneRecord


@contextmanager
def held(names: Sequence[str]) -> Iterator[list[Phone]]:
    """The phones of these names, leased until the block ends; each phone once.

    `all` is every attached phone. `virtual` is every running virtual phone, or one that is started
    here and stopped at the end. Raises DeviceError: none attached, unknown, unauthorized, offline,
    or held by another run.
    """
    with ExitStack() as stack:
        found: dict[str, Phone] = {}
        for name in names:
            for phone in _named(name, stack):
                found.setdefault(phone.serial, phone)
        for phone in found.values():
            stack.enter_context(phone.lease())
        yield list(found.values())


def _named(name: str, stack: ExitStack) -> list[Phone]:
    if name == "all":
        return adb.find_all()
    if name != "virtual":
        return [adb.find(name)]
    return [adb.find(phone.serial) for phone in stack.enter_context(virtual.at_hand())]


def describe(phone: Phone) -> PhoneRecord:
    """Who the phone is, as a run records it."""
    identity = phone.patiently(phone.identity)
    return PhoneRecord(
        serial=phone.serial,
        virtual=phone.serial in {other.serial for other in virtual.running()},
        model=identity.model,
        manufacturer=identity.manufacturer,
        abi=identity.abi,
        android_version=identity.android_version,
        sdk=identity.sdk,
        build=identity.build,
        cores=identity.cores,
        cpu_features=tuple(sorted(identity.cpu_features)),
        memory_total_kib=identity.memory_total_kib,
        boot_id=identity.boot_id,
    )
