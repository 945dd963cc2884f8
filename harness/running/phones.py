"""From what a user names to phones held for the length of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from driftloop.devices import adb, virtual
from driftloop.devices.errors import BadRequest, DeviceError, NoPhone, PhoneBusy
from driftloop.devices.phone import Phone
from driftloop.harness import project_file
from driftloop.harness.records.record import LeftOutPhone, PhoneRecord

_WAIT_STEP_S = 0.5
_CONDITIONS = ("abi", "model", "tag")


@dataclass(frozen=True)
class Held:
    """The phones of a run, and those of the named sets that it has to do without."""

    phones: list[Phone]
    left_out: tuple[LeftOutPhone, ...]


@contextmanager
def held(names: Sequence[str], *, wait_s: float = 0.0, at_least: int = 1) -> Iterator[Held]:
    """The phones of these names, leased until the block ends; each phone once.

    A name is a serial or a set: `all`; `virtual`, every running virtual phone, or one that is
    started here and stopped at the end; or conditions joined by commas, such as `model=Pixel*`,
    `abi=arm64-v8a`, `tag=mid` (from driftloop.toml) and `any:2`, that many which are free. A phone
    of a set that cannot be used is left out. `wait_s`: how long to wait for phones that are busy.

    Raises:
        DeviceError: a named phone is not there, cannot be used or is busy; a set has fewer free
            phones than `any` asks for; fewer than `at_least` are left.
    """
    deadline = time.monotonic() + wait_s
    with ExitStack() as stack:
        phones: dict[str, Phone] = {}
        without: dict[str, DeviceError] = {}
        for name in names:
            wanted = _named(name, stack)
            without |= wanted.unusable
            fresh = [phone for phone in wanted.phones if phone.serial not in phones]
            free, busy = _leased(fresh, wanted.count or len(fresh), deadline, stack)
            if busy and (wanted.alone or len(free) < wanted.count):
                raise next(iter(busy.values()))
            if len(free) < wanted.count:
                raise NoPhone(f"--phone {name}: only {len(free)} such phones can be used")
            without |= {} if wanted.count else busy
            phones |= {phone.serial: phone for phone in free}
        if names and len(phones) < at_least:
            reasons = "; ".join(map(str, without.values())) or "no such phone is attached"
            raise NoPhone(f"{len(phones)} of at least {at_least} phones can be used: {reasons}")
        yield Held(
            list(phones.values()),
            tuple(
                LeftOutPhone(phone=name, kind=type(why).__name__, detail=str(why))
                for name, why in without.items()
                if name not in phones
            ),
        )


@dataclass(frozen=True)
class _Wanted:
    """What a name stands for among the phones that are there."""

    phones: list[Phone]
    unusable: dict[str, DeviceError]
    count: int = 0
    """How many of them; 0: all."""
    alone: bool = False
    """The name is one phone's, which no other can stand in for."""


def _named(name: str, stack: ExitStack) -> _Wanted:
    if name == "virtual":
        started = stack.enter_context(virtual.at_hand())
        return _Wanted([adb.find(phone.serial) for phone in started], {})
    terms = name.split(",")
    if name != "all" and not all(_is_condition(term) for term in terms):
        return _Wanted([adb.find(name)], {}, alone=True)
    phones, unusable = adb.find_all()
    count = 0
    for term in terms if name != "all" else ():
        key, _, pattern = term.partition("=")
        if term.startswith("any:"):
            count = _count(term)
        elif key == "tag":
            serials = _tagged(pattern)
            phones = [phone for phone in phones if serials(phone.serial)]
            unusable = {one: why for one, why in unusable.items() if serials(one)}
        else:
            phones = [one for one in phones if fnmatchcase(getattr(one.identity(), key), pattern)]
            unusable = {}  # a phone that cannot be asked is not known to be of the set
    return _Wanted(phones, {} if count else unusable, count)


def _is_condition(term: str) -> bool:
    return term.startswith("any:") or term.partition("=")[0] in _CONDITIONS


def _count(term: str) -> int:
    number = term.removeprefix("any:")
    if not number.isdecimal() or int(number) < 1:
        raise BadRequest(f"--phone {term}: any: takes a number from 1 on, such as any:2")
    return int(number)


def _tagged(tag: str) -> Callable[[str], bool]:
    """Whether a serial has that tag."""
    patterns = project_file.tags(Path()).get(tag)
    if patterns is None:
        raise BadRequest(f"--phone tag={tag}: driftloop.toml has no such tag under [tags]")
    return lambda serial: any(fnmatchcase(serial, pattern) for pattern in patterns)


def _leased(
    phones: Sequence[Phone], enough: int, deadline: float, stack: ExitStack
) -> tuple[list[Phone], dict[str, DeviceError]]:
    """Those of `phones`, up to `enough`, that could be leased by then; why the others could not."""
    free: list[Phone] = []
    while True:
        busy: dict[str, DeviceError] = {}
        for phone in phones:
            if len(free) < enough and phone not in free:
                try:
                    stack.enter_context(phone.lease())
                    free.append(phone)
                except PhoneBusy as error:
                    busy[phone.serial] = error
        if len(free) == enough or not busy or time.monotonic() >= deadline:
            return free, busy
        time.sleep(_WAIT_STEP_S)


@dataclass(frozen=True)
class Candidate:
    """A phone that somebody named, before it is leased."""

    name: str
    """The same from run to run: of a virtual phone, whose serial changes, its name."""
    serial: str | None
    """None where no phone answers to the name yet: a virtual one may be started."""
    refusal: str | None = None
    """Why it cannot be used, in one line."""


def candidates(names: Sequence[str]) -> list[Candidate]:
    """The phones of these names, understood as in `held`, each once: those that cannot be used are
    among them and hide no other. Nothing is leased or started."""
    own = {phone.serial: phone.name for phone in virtual.running()}
    found: dict[str, Candidate] = {}
    for name in names:
        if name == "virtual" and not own:
            found[name] = Candidate(name, None, virtual.available())
            continue
        try:
            with ExitStack() as stack:
                wanted = _named(name, stack)
        except DeviceError as error:
            found[name] = Candidate(name, None, str(error))
            continue
        for phone in wanted.phones[: wanted.count or None]:
            named = own.get(phone.serial, phone.serial)
            found.setdefault(phone.serial, Candidate(named, phone.serial))
        for address, why in wanted.unusable.items():
            found.setdefault(address, Candidate(address, address, str(why)))
        if not wanted.phones and not wanted.unusable:
            found[name] = Candidate(name, None, f"{name}: no such phone is attached")
    return list(found.values())


def describe(phone: Phone) -> PhoneRecord:
    """Who the phone is, as a run records it."""
    identity = phone.patiently(phone.identity)
    return PhoneRecord(
        serial=phone.serial,
        address=phone.address,
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
