"""A run that the host ends early: what was always to be run still is."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace

from devices.phone import Phone
from devices.runner.attempt import REMOTE_RUNS
from devices.runner.client import run
from devices.runner.protocol import Attestation, Finished
from devices.runner.work import Work, WorkImage
from devices.virtual import VirtualPhone
from harness.bundle import Bundle
from tests.runner_work import ONE_THREAD, many, places, work

CANARIES = 2
SESSIONS = 200


def long_work(tiny: Bundle, phone: Phone, pictures: list[WorkImage]) -> Work:
    """Far more images than are run before a stop is heard of; the last two are always run."""
    images = many(pictures, SESSIONS)
    always = [replace(one, always=True) for one in images[-CANARIES:]]
    return work(tiny, phone, [*images[:-CANARIES], *always], **ONE_THREAD)


def stopped_after(phone: Phone, todo: Work, count: int) -> Iterator[object]:
    """`run`, stopped once so many lines have come."""
    stop = threading.Event()
    for number, line in enumerate(run(phone, todo, stop=stop), start=1):
        yield line
        if number == count:
            stop.set()


def always_places(todo: Work) -> list[tuple[int, int]]:
    return [(one.session, one.position) for one in todo.images if one.always]


def starts(phone: Phone, todo: Work) -> int:
    """How often a runner was started for it."""
    listed = phone.shell(f"ls -d {REMOTE_RUNS}/{todo.run_id}/*/* 2>/dev/null", check=False).stdout
    return len(listed.split())


def test_a_stopped_run_ends_soon_with_what_is_always_run(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = long_work(tiny, device, pictures)
    *lines, finished = stopped_after(device, todo, 5)
    seen = places(lines)
    assert seen[-CANARIES:] == always_places(todo)
    assert seen == sorted(seen)
    assert len(seen) < len(todo.images)
    assert finished == Finished(images=len(seen))


def test_a_run_resumed_after_a_stop_starts_nothing(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = long_work(tiny, device, pictures)
    first = list(stopped_after(device, todo, 5))
    again = list(run(device, todo))
    assert again == first
    assert starts(device, todo) == 1


def test_a_runner_lost_after_a_stop_is_started_again_for_what_is_always_run(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = long_work(tiny, device, pictures)
    lines = run(device, todo)
    pid = next(line.pid for line in lines if isinstance(line, Attestation))
    next(lines)
    lines.close()
    device.shell(f"kill -9 {pid}")
    stop = threading.Event()
    stop.set()
    rest = list(run(device, todo, stop=stop))
    assert set(always_places(todo)) <= set(places(rest))
    assert len(places(rest)) < len(todo.images)
    assert starts(device, todo) == 2


def test_a_run_stopped_before_it_began_runs_only_what_is_always_run(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = long_work(tiny, device, pictures)
    stop = threading.Event()
    stop.set()
    lines = list(run(device, todo, stop=stop))
    assert places(lines) == always_places(todo)
    assert lines[-1] == Finished(images=CANARIES)


def test_a_stop_is_heard_though_the_connection_is_lost(
    device: Phone, x86_phone: VirtualPhone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = long_work(tiny, device, pictures)
    stop = threading.Event()
    seen = []
    for line in run(device, todo, stop=stop):
        seen.append(line)
        if len(seen) == 5:
            os.kill(x86_phone.adbd_pid(), signal.SIGKILL)
            stop.set()
    assert set(always_places(todo)) <= set(places(seen))
    assert len(places(seen)) < len(todo.images)
    assert sum(isinstance(line, Attestation) for line in seen) == 1
