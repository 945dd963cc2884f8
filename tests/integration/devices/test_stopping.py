"""A run that the host ends early: what was always to be run still is."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from driftloop.devices.phone import Phone
from driftloop.devices.runner.attempt import attempts
from driftloop.devices.runner.client import run, run_folder
from driftloop.devices.runner.protocol import Finished
from driftloop.devices.runner.work import Work
from driftloop.devices.virtual import VirtualPhone
from tests.runner_work import TinyRunner, attestations, slots

CANARIES = 2


@pytest.fixture
def todo(tiny: TinyRunner) -> Work:
    """Far more images than are run before a stop is heard of; the last two are always run."""
    work = tiny.long_work(200)
    always = [replace(one, always=True) for one in work.images[-CANARIES:]]
    return replace(work, images=(*work.images[:-CANARIES], *always))


def canaries(todo: Work) -> list[tuple[int, int]]:
    return [(one.session, one.position) for one in todo.images if one.always]


def stopped(
    phone: Phone, todo: Work, *, after: int, meanwhile: Callable[[], None] = lambda: None
) -> list[object]:
    """The lines of `run`, stopped once so many have come; 0 is before it begins."""
    stop = threading.Event()
    lines: list[object] = []
    if not after:
        stop.set()
    for line in run(phone, todo, stop=stop):
        lines.append(line)
        if len(lines) == after:
            meanwhile()
            stop.set()
    return lines


def test_a_stopped_run_ends_soon_with_what_is_always_run_and_stays_stopped(
    tiny: TinyRunner, todo: Work
) -> None:
    lines = stopped(tiny.phone, todo, after=5)
    seen = slots(lines)
    assert seen[-CANARIES:] == canaries(todo)
    assert seen == sorted(seen)
    assert len(seen) < len(todo.images)
    assert lines[-1] == Finished(images=len(seen))
    assert list(run(tiny.phone, todo)) == lines
    assert len(attempts(tiny.phone, run_folder(todo))) == 1


def test_a_runner_lost_after_a_stop_is_started_again_for_what_is_always_run(
    tiny: TinyRunner, todo: Work
) -> None:
    lines = run(tiny.phone, todo)
    (attestation,) = attestations([next(lines)])
    next(lines)
    lines.close()
    tiny.phone.shell(f"kill -9 {attestation.pid}")
    rest = slots(stopped(tiny.phone, todo, after=0))
    assert set(canaries(todo)) <= set(rest)
    assert len(rest) < len(todo.images)
    assert len(attempts(tiny.phone, run_folder(todo))) == 2


def test_a_run_stopped_before_it_began_runs_only_what_is_always_run(
    tiny: TinyRunner, todo: Work
) -> None:
    lines = stopped(tiny.phone, todo, after=0)
    assert slots(lines) == canaries(todo)
    assert lines[-1] == Finished(images=CANARIES)


def test_a_stop_is_heard_though_the_connection_is_lost(
    tiny: TinyRunner, todo: Work, x86_phone: VirtualPhone
) -> None:
    lines = stopped(
        tiny.phone, todo, after=5, meanwhile=lambda: os.kill(x86_phone.adbd_pid(), signal.SIGKILL)
    )
    assert set(canaries(todo)) <= set(slots(lines))
    assert len(slots(lines)) < len(todo.images)
    assert len(attestations(lines)) == 1
