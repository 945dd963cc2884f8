"""An arm in a process of its own: its answers, its memory, its faults and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from driftloop.harness import contract as contracts
from driftloop.harness import ladder
from driftloop.harness.arms.base import Prepared, Side
from driftloop.harness.arms.desktop import DesktopArm
from driftloop.harness.arms.process import ArmProcess
from driftloop.harness.bundle import Bundle
from driftloop.harness.errors import ArmUnavailable, BundleError
from driftloop.harness.records.observation import Observation

CONTRACT = contracts.load("default")
NAME = "desktop:q8_0+app"
MIB = 1024


@pytest.fixture
def desktop(tiny_bundle: Bundle) -> Iterator[ArmProcess]:
    with closing(process(tiny_bundle, NAME)) as arm:
        yield arm


def process(bundle: Bundle, name: str) -> ArmProcess:
    return ArmProcess(ladder.parse(name), Side(CONTRACT, bundle))


def test_it_answers_as_the_arm_does_in_this_process(
    desktop: ArmProcess, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    own = DesktopArm(tiny_bundle, "q8_0", CONTRACT.runtime, CONTRACT, NAME)
    untimed = {"timings_ms": None, "conditions": None}
    theirs = [one.model_copy(update=untimed) for one in desktop.observe(pictures[:3])]
    assert theirs == [one.model_copy(update=untimed) for one in own.observe(pictures[:3])]
    assert desktop.attest().settings == own.attest().settings
    assert desktop.attest().pid == desktop.pid != os.getpid()


def test_a_desktop_arms_memory_is_not_torchs(
    desktop: ArmProcess, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    with closing(process(tiny_bundle, "torch")) as torch:
        torchs, ours = (peak_mib(arm, pictures) for arm in (torch, desktop))
    assert ours < torchs / 2


def peak_mib(arm: ArmProcess, pictures: list[Prepared]) -> float:
    (seen,) = arm.observe(pictures[:1])
    assert seen.conditions.memory_peak_kib is not None
    return seen.conditions.memory_peak_kib / MIB


def test_its_death_says_how_and_while_what(desktop: ArmProcess, pictures: list[Prepared]) -> None:
    answers = desktop.observe(pictures)
    next(answers)
    end(desktop)
    with pytest.raises(
        ArmUnavailable, match=rf"arm {NAME.replace('+', '.')}: .* SIGKILL.* answering image \d of 6"
    ):
        list(answers)
    assert desktop.pid is None
    assert len(list(desktop.observe(pictures[:1]))) == 1, "asked again, it starts again"


def end(arm: ArmProcess) -> None:
    assert arm.pid is not None
    os.kill(arm.pid, signal.SIGKILL)


def test_what_the_arm_raises_is_raised_here(tiny_bundle: Bundle) -> None:
    with (
        closing(process(tiny_bundle, "desktop:q2_k")) as arm,
        pytest.raises(BundleError, match="no q2_k"),
    ):
        arm.attest()


def test_answers_that_nobody_waits_for_do_not_come_in_place_of_others(
    desktop: ArmProcess, pictures: list[Prepared]
) -> None:
    answers: Iterator[Observation] = desktop.observe(pictures)
    next(answers)
    del answers
    (seen,) = desktop.observe(pictures[4:5])
    assert seen.case_id == pictures[4].case_id


def test_it_ends_with_the_process_that_started_it(tiny_bundle: Bundle) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from harness import bundle, contract, ladder\n"
        "from harness.arms.process import ArmProcess\n"
        "from harness.arms.base import Side\n"
        "side = Side(contract.load('default'), bundle.load(Path(sys.argv[1])))\n"
        f"arm = ArmProcess(ladder.parse('{NAME}'), side)\n"
        "print(arm.attest().pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tiny_bundle.path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = Path("/proc") / parent.stdout.readline().strip()
        assert child.is_dir()
        parent.kill()
    deadline_s = time.monotonic() + 30
    while child.is_dir() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not child.is_dir()
