"""The cause of a runner's end, from what a phone says of it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from driftloop.devices.runner import variants
from driftloop.devices.runner.ending import PASSING, Scene, activity, fault
from driftloop.devices.runner.protocol import Heartbeat
from driftloop.devices.runner.variants import ARM64_DOTPROD, ARM64_I8MM, Variant

BEAT = Heartbeat(beat=3, pid=4242, stage="encode", image=7)
MEMINFO = "MemTotal:  3670016 kB\nMemFree: 1 kB\nMemAvailable:  524288 kB\n"
LMKD = (
    "11-28 10:00:01.123  512  512 I lowmemorykiller: Kill 'runner' (4242), uid 2000, oom_score_adj "
    "0 to free 812345kB rss, 0kB swap; reason: low watermark is breached"
)
KERNEL = "[ 99.1] Out of memory: Killed process 4242 (runner) total-vm:9kB, anon-rss:812345kB"
OTHERS = (
    "I Zygote  : Process 4242 exited due to signal 9 (Killed)\n"
    "I ActivityManager: Killing 4242:com.example/u0a1 (adj 900): empty for 1800s\n"
)
QUIET = Scene(
    status=137, rebooted=False, free_bytes=2**30, memory="", killer="", words="ggml: allocating"
)


def read(status: str = "137\n", boots: tuple[str, str] = ("a\n", "a\n"), log: str = "") -> Scene:
    return Scene.of(status, boots, 2**30, MEMINFO, log, "")


@pytest.mark.parametrize(
    ("scene", "kind", "says"),
    [
        (read("137\n"), "killed", "SIGKILL ended it in stage encode of image 7; the phone's log "),
        (read("137\n"), "killed", "512 of 3584 MiB of memory are available now"),
        (read("137\n", log=f"{OTHERS}{LMKD}\n"), "killed", "ran out of memory.*lowmemorykiller"),
        (read("137\n", log=f"{OTHERS}{KERNEL}\n"), "killed", "ran out of memory.*812345kB"),
        (read("137\n", log=OTHERS), "killed", "does not name who did it"),
        (read("143\n"), "killed", "SIGTERM"),
        (read("129\n"), "killed", "SIGHUP"),
        (read(""), "killed", "together with the shell that watched it"),
        (read("9" * 5000), "killed", "together with the shell"),
        (read("", boots=("a\n", "b\n")), "rebooted", "restarted in stage encode"),
        (read("139\n", boots=("", "b\n")), "crashed", "SIGSEGV ended it"),
        (read("135\n"), "crashed", "SIGBUS"),
        (read("132\n"), "crashed", r"SIGILL \(an illegal instruction: it lacks i8mm\) ended it"),
        (read("255\n"), "died", "by signal 127"),
        (replace(QUIET, status=1), "died", "exit code 1 .*last output: ggml: allocating"),
        (replace(QUIET, status=126), "died", "could not be started; its last output"),
        (replace(QUIET, free_bytes=8192), "storage", r"storage is full \(8 KiB free\)"),
        (
            replace(QUIET, status=1, words="cannot write: No space left on device"),
            "storage",
            "storage is full",
        ),
    ],
)
def test_the_cause_is_named(scene: Scene, kind: str, says: str) -> None:
    found = fault(scene, BEAT, lambda: "it lacks i8mm")
    assert found.kind == kind
    assert re.search(says, found.detail), found.detail
    assert "\n" not in found.detail


def test_only_what_came_from_outside_is_tried_again() -> None:
    assert set(PASSING) == {"killed", "rebooted", "damaged"}


def test_an_end_before_the_first_beat_is_at_once() -> None:
    assert "ended it at once" in fault(read("139\n"), None, str).detail


class Cpu:
    """What `variants.Machine` asks for."""

    def __init__(self, *features: str, abi: str = "arm64-v8a") -> None:
        self.abi = abi
        self.cpu_features = features


DOTPROD = ("asimddp", "fphp", "asimdhp")


@pytest.mark.parametrize(
    ("variant", "cpu", "says"),
    [
        (
            ARM64_I8MM,
            Cpu(*DOTPROD),
            "the runner was built for i8mm, which this CPU does not have; "
            "variant arm64-dotprod would run",
        ),
        (ARM64_I8MM, Cpu(), "built for asimddp, fphp, asimdhp, i8mm.*variant arm64 would run"),
        (ARM64_DOTPROD, Cpu("sse4_2", abi="x86_64"), "built for arm64-v8a.*variant x86_64 would"),
        (ARM64_DOTPROD, Cpu(abi="armeabi-v7a"), "no variant would run"),
        (ARM64_I8MM, Cpu(*DOTPROD, "i8mm"), "names everything .*variant arm64-dotprod needs less"),
        (variants.ARM64, Cpu(), "names everything .*no variant needs less"),
        (None, Cpu(), "does not say which CPU"),
    ],
)
def test_an_illegal_instruction_is_compared_with_the_cpu(
    variant: Variant | None, cpu: Cpu, says: str
) -> None:
    assert re.search(says, variants.misfit(variant, cpu))


STAT = "4242 (runner) {} 1 4242 4242 0 -1 0 0 0 0 0 {} {} 0 0 20 0 1 0 99"


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (STAT.format("R", 100, 5), STAT.format("R", 190, 5), r"computes \(0\.90 s of CPU"),
        (STAT.format("T", 100, 5), STAT.format("T", 100, 5), "is stopped"),
        (STAT.format("D", 100, 5), STAT.format("D", 100, 5), r"waits \(state D\) and uses no CPU"),
        (STAT.format("R", 100, 5), "", "is gone"),
    ],
)
def test_a_process_that_computes_is_told_from_one_that_does_not(
    before: str, after: str, says: str
) -> None:
    assert re.search(says, activity(before, after))
