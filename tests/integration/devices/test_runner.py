"""The runner on a genuine adbd: answers, faults, and every way to lose it on the way."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from driftloop.devices import adb, virtual
from driftloop.devices.errors import RunnerFailed
from driftloop.devices.hashing import file_sha256
from driftloop.devices.identity import Abi
from driftloop.devices.phone import Phone
from driftloop.devices.runner import variants
from driftloop.devices.runner.attempt import REMOTE_RUNS, attempts, end_all
from driftloop.devices.runner.build import runner_binary
from driftloop.devices.runner.client import Limits, discard, run, run_folder
from driftloop.devices.runner.protocol import Attestation, Finished
from driftloop.devices.runner.work import Work, WorkImage
from driftloop.devices.server import Server
from driftloop.devices.virtual import VirtualPhone
from tests.runner_work import TinyRunner, answers, attestations, image_results, slots


def runner_pids(phone: Phone) -> list[int]:
    """Pids, as the phone counts them, of runners of any run."""
    printed = phone.shell(
        "for file in /proc/[0-9]*/cmdline; do echo ${file#/proc/} $(tr '\\0' ' ' <$file); done",
        check=False,
    ).stdout
    rows = re.findall(rf"^(\d+)/cmdline .*{REMOTE_RUNS}/\S+/request\.json", printed, re.MULTILINE)
    return [int(pid) for pid in rows]


def every_slot(todo: Work) -> list[tuple[int, int]]:
    return [(one.session, one.position) for one in todo.images]


def test_a_run_yields_attestation_then_each_image_then_finished(
    virtual_phone: VirtualPhone, tiny: TinyRunner
) -> None:
    tiny = replace(tiny, phone=adb.find(virtual_phone.serial))
    todo = tiny.work(3)
    discard(tiny.phone, todo.run_id)
    attestation, *lines, finished = list(run(tiny.phone, todo))
    assert isinstance(attestation, Attestation)
    assert finished == Finished(images=3)
    images = image_results(lines)
    assert slots(images) == [(0, 0), (0, 1), (0, 2)]
    for image, wanted in zip(images, tiny.pictures, strict=False):
        assert image.error is None
        assert image.pixels_sha256 == wanted.pixels_sha256
        assert (image.grid, image.image_tokens) == ((0, 0), 4)
        assert image.stop_reason in {"eog", "max_tokens"}
        assert image.timings_ms is not None
        assert len(image.timings_ms.encode) == 1
        assert len(image.timings_ms.decode) == len(image.tokens) - 1
        assert set(image.label_logprobs) == set(todo.settings.labels)
        assert image.tokens[0].top[0].id == image.tokens[0].id
        assert 0 < image.memory_kib <= image.memory_peak_kib


def test_the_attestation_names_the_build_the_machine_and_the_models(tiny: TinyRunner) -> None:
    todo = tiny.work(threads=3)
    attestation = next(run(tiny.phone, todo))
    assert isinstance(attestation, Attestation)
    variant = variants.choose(tiny.phone.identity())
    assert attestation.variant == variant.name
    assert variants.of_program(todo.runner) is variant
    assert set(variant.needs) <= set(attestation.cpu_features_found)
    options = {option.removeprefix("GGML_") for option in variant.ggml}
    assert options - {"SSE42"} <= set(attestation.cpu_features_used)
    assert (attestation.backends, attestation.threads) == (["CPU"], 3)
    assert attestation.text_model_sha256 == todo.text_model_sha256
    assert attestation.mmproj_sha256 == todo.mmproj_sha256
    # the process itself, its heartbeat, and ggml's threads while the model warmed up
    assert len(attestation.placement) > 2
    assert all(re.fullmatch(r"[\d,-]+", place.cpus_allowed) for place in attestation.placement)


def test_split_evaluates_every_tile_and_single_the_overview_alone(tiny: TinyRunner) -> None:
    (single,) = tiny.answer(tiny.work(tiling="single"))
    (split,) = tiny.answer(tiny.work(tiling="split"))
    assert (single.grid, single.image_tokens) == ((0, 0), 4)
    assert (split.grid, split.image_tokens) == ((2, 2), 20)
    assert split.timings_ms is not None
    assert len(split.timings_ms.encode) == 5
    # the same text after the image, the same overview, one frame around it
    assert split.prompt_ids[-len(single.prompt_ids) :] == single.prompt_ids


def test_one_bad_picture_is_a_fault_of_its_own_and_the_rest_is_answered(
    tiny: TinyRunner, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(tiny.pictures[1].pixels_path.read_bytes()[:300])
    images = [tiny.pictures[0], WorkImage("broken", 0, 1, broken, "0" * 64), tiny.pictures[2]]
    results = tiny.answer(tiny.work(images))
    kinds = [one.error.kind if one.error else None for one in results]
    assert kinds == [None, "image_decode", None]
    assert (results[1].pixels_sha256, results[1].tokens) == (None, [])


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_encoded(tiny: TinyRunner) -> None:
    (image,) = tiny.answer(tiny.work(context=32))
    assert image.error is not None
    assert image.error.kind == "context_full"
    assert (len(image.prompt_ids), image.tokens) == (32, [])
    assert image.timings_ms is not None
    assert image.timings_ms.encode == []


def test_an_answer_that_fills_the_context_stops_and_keeps_its_tokens(tiny: TinyRunner) -> None:
    # an image without a question makes the tiny model repeat itself: 7 ids of prompt, room for one
    (image,) = tiny.answer(tiny.work(prompt="<__media__>", context=8))
    assert image.error is not None
    assert (image.error.kind, image.stop_reason) == ("context_full", "error")
    assert (len(image.prompt_ids), len(image.tokens)) == (7, 2)
    assert image.text == "".join(token.piece for token in image.tokens)


@pytest.mark.parametrize(
    ("broken", "kind"), [("text_model", "model_load"), ("mmproj", "mmproj_load")]
)
def test_a_damaged_model_ends_the_run_with_its_kind(
    tiny: TinyRunner, tmp_path: Path, broken: str, kind: str
) -> None:
    todo = tiny.work()
    damaged = tmp_path / "damaged.gguf"
    whole = getattr(todo, broken).read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    todo = replace(todo, **{broken: damaged, f"{broken}_sha256": file_sha256(damaged)})
    with pytest.raises(RunnerFailed) as caught:
        tiny.answer(todo)
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


def test_a_finished_run_is_read_again_without_running_anything(tiny: TinyRunner) -> None:
    todo = tiny.work(3)
    first = list(run(tiny.phone, todo))
    assert list(run(tiny.phone, todo)) == first
    assert len(attempts(tiny.phone, run_folder(todo))) == 1


def test_other_settings_under_the_same_name_are_another_run(tiny: TinyRunner) -> None:
    (first,) = tiny.answer(tiny.work())
    (other,) = tiny.answer(tiny.work(cache_type_k="f16"))
    assert first.label_logprobs != other.label_logprobs


def test_the_end_of_adbd_costs_no_answer(tiny: TinyRunner, x86_phone: VirtualPhone) -> None:
    todo = tiny.long_work(90)
    seen = []
    for line in run(tiny.phone, todo):
        seen.append(line)
        if len(seen) in {10, 40}:
            os.kill(x86_phone.adbd_pid(), signal.SIGKILL)
    assert sorted(slots(seen)) == every_slot(todo)
    assert len(attestations(seen)) == 1, "the runner was never started again"
    assert tiny.phone.disturbances.link_breaks >= 2
    assert tiny.phone.disturbances.waited_s > 0


_HOST = """
import pickle, sys
from driftloop.devices import adb
from driftloop.devices.runner.client import run
serial, path = sys.argv[1:]
todo = pickle.load(open(path, "rb"))
for line in run(adb.find(serial), todo):
    print(line.record, flush=True)
"""


def test_a_killed_host_finds_every_answer_exactly_once_when_it_comes_back(
    tiny: TinyRunner, tmp_path: Path
) -> None:
    todo = tiny.long_work(90)
    undisturbed = tiny.answer(tiny.long_work(90, run_id="undisturbed"))
    saved = tmp_path / "work.pickle"
    saved.write_bytes(pickle.dumps(todo))
    command = [sys.executable, "-c", _HOST, tiny.phone.serial, str(saved)]
    for lines in (0, 1, 8):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
            assert host.stdout is not None
            for _ in range(lines):
                host.stdout.readline()
            if lines == 0:
                time.sleep(0.7)  # somewhere between its start and the runner's
            host.kill()
    seen = tiny.answer(todo)
    assert sorted(slots(seen)) == every_slot(todo)
    assert answers(seen) == answers(undisturbed)


def signalled(phone: Phone, todo: Work, name: str, after: int) -> Iterator[object]:
    """`run`, its runner getting a signal after so many lines."""
    for count, line in enumerate(run(phone, todo, limits=Limits(heartbeat_s=3.0)), start=1):
        yield line
        if count == after:
            for pid in runner_pids(phone):
                phone.shell(f"kill -{name} {pid}")


def test_a_killed_runner_is_started_again_for_what_is_left(tiny: TinyRunner) -> None:
    todo = tiny.long_work(90)
    seen = list(signalled(tiny.phone, todo, "KILL", after=5))
    assert sorted(slots(seen)) == every_slot(todo)
    assert len(attestations(seen)) == tiny.phone.disturbances.starts == 2
    (said,) = tiny.phone.disturbances.remarks
    assert re.search(r"killed: SIGKILL ended it in stage .* \d+ images are run again$", said)


def disturbed(phone: Phone, todo: Work, act: Callable[[list[object]], object]) -> list[object]:
    """The lines of `run`; after each of them `act` is given those so far."""
    seen: list[object] = []
    for line in run(phone, todo, limits=Limits(heartbeat_s=3.0)):
        seen.append(line)
        act(seen)
    return seen


def test_a_runner_that_is_killed_again_and_again_is_given_up(tiny: TinyRunner) -> None:
    def kill(seen: list[object]) -> None:
        if isinstance(seen[-1], Attestation):
            tiny.phone.shell(f"kill -9 {seen[-1].pid}")

    with pytest.raises(RunnerFailed, match="SIGKILL") as caught:
        disturbed(tiny.phone, tiny.long_work(180), kill)
    assert caught.value.kind == "killed"
    assert 3 <= tiny.phone.disturbances.starts <= 10


def test_a_crash_is_named_and_left_to_the_next_call(tiny: TinyRunner) -> None:
    todo = tiny.long_work(90)
    with pytest.raises(RunnerFailed, match=r"SIGILL .*this CPU names everything") as caught:
        list(signalled(tiny.phone, todo, "ILL", after=5))
    assert (caught.value.kind, tiny.phone.disturbances.starts) == ("crashed", 1)
    again = list(run(tiny.phone, todo))
    assert sorted(slots(again)) == every_slot(todo)
    assert len(attestations(again)) == 2


def test_an_illegal_instruction_names_what_the_cpu_lacks_and_what_would_run(
    tiny: TinyRunner, server: Server
) -> None:
    with started("arm64-v8a", cpu="cortex-a53") as phone:
        todo = replace(tiny.work(), runner=runner_binary(variants.ARM64_DOTPROD))
        with pytest.raises(RunnerFailed) as caught:
            list(run(phone, todo))
    assert caught.value.kind == "crashed"
    assert (
        "SIGILL (an illegal instruction: the runner was built for asimddp, fphp, asimdhp, which "
        "this CPU does not have; variant arm64 would run)"
    ) in str(caught.value)


def test_a_restart_of_the_phone_is_told_from_a_killed_runner(
    tiny: TinyRunner, x86_phone: VirtualPhone
) -> None:
    def restart(seen: list[object]) -> None:
        if len(seen) == 5:
            x86_phone.state.update(boot_id=str(uuid.uuid4()))
            end_all(tiny.phone)

    todo = tiny.long_work(90)
    assert sorted(slots(disturbed(tiny.phone, todo, restart))) == every_slot(todo)
    assert "the phone was restarted" in tiny.phone.disturbances.remarks[0]


def test_a_full_disk_is_named_and_nothing_is_lost(tiny: TinyRunner, server: Server) -> None:
    with started("x86_64", storage_mb=40) as phone:
        todo = replace(tiny, phone=phone).long_work(90)

        def fill(seen: list[object]) -> None:
            if len(seen) == 5:
                phone.shell("cat /dev/zero >/data/local/tmp/fill", check=False)

        with pytest.raises(RunnerFailed, match="storage is full") as caught:
            disturbed(phone, todo, fill)
        assert caught.value.kind == "storage"
        phone.shell("rm /data/local/tmp/fill")
        assert sorted(slots(run(phone, todo))) == every_slot(todo)


@contextmanager
def started(abi: Abi, *, cpu: str | None = None, storage_mb: int | None = None) -> Iterator[Phone]:
    """A phone for one test."""
    machine = virtual.start(abi, cpu=cpu, storage_mb=storage_mb)
    try:
        yield adb.find(machine.serial)
    finally:
        virtual.stop(machine.name)


def rewritten(phone: Phone, todo: Work, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Changes the lines of what the first attempt wrote."""
    results = f"{run_folder(todo)}/0000/results.jsonl"
    lines = phone.shell(f"cat {results}").stdout.encode().splitlines()
    phone.push(b"".join(line + b"\n" for line in change(lines)), results)


def test_results_are_believed_up_to_a_damaged_line_and_the_rest_is_run_again(
    tiny: TinyRunner,
) -> None:
    todo = tiny.long_work(10)
    first = tiny.answer(todo)
    rewritten(tiny.phone, todo, lambda lines: [*lines[:6], b"\xe2\x80\xa8{}", *lines[6:]])
    for _ in range(2):
        seen = list(run(tiny.phone, todo))
        assert answers(seen) == answers(first)
        assert len(attestations(seen)) == 2
    (said,) = tiny.phone.disturbances.remarks
    assert "after 5 answers" in said
    assert "25 images are run again" in said


def test_an_answer_to_nothing_and_a_second_other_answer_are_said_and_do_not_count(
    tiny: TinyRunner,
) -> None:
    todo = tiny.long_work(3)
    first = tiny.answer(todo)

    def doubled(lines: list[bytes]) -> list[bytes]:
        again = json.loads(lines[1])
        other = json.dumps(again | {"text": "another"}).encode()
        stranger = json.dumps(again | {"case_id": "stranger"}).encode()
        return [*lines[:3], lines[1], other, stranger, *lines[3:]]

    rewritten(tiny.phone, todo, doubled)
    assert tiny.answer(todo) == first
    twice, unasked = tiny.phone.disturbances.remarks
    assert "twice and not alike" in twice
    assert "'another'" in twice
    assert "case stranger" in unasked


def test_a_runner_without_a_sign_of_life_is_ended(tiny: TinyRunner) -> None:
    with pytest.raises(RunnerFailed) as caught:
        list(signalled(tiny.phone, tiny.long_work(90), "STOP", after=2))
    assert caught.value.kind == "hung"
    assert "its process is stopped" in caught.value.detail
    assert runner_pids(tiny.phone) == []


def test_the_heart_beats_at_least_once_a_second(tiny: TinyRunner) -> None:
    todo = tiny.long_work(60, tiling="split")
    beats = []
    for _ in run(tiny.phone, todo):
        (attempt,) = attempts(tiny.phone, run_folder(todo))
        beat = attempt.poll(None, 0).heartbeat
        # each beat once, when it is first seen: the last one is still there after the end
        if beat and (not beats or beat.beat != beats[-1][1].beat):
            beats.append((time.monotonic(), beat))
    (first_s, first), (last_s, last) = beats[0], beats[-1]
    assert last.beat - first.beat >= int(last_s - first_s)
    assert last.image > 0


@pytest.mark.parametrize("ended_by", ["another run", "a discard"])
def test_a_runner_that_was_left_behind_is_ended(tiny: TinyRunner, ended_by: str) -> None:
    left = run(tiny.phone, tiny.long_work(180, run_id="left"))
    next(left)
    left.close()
    assert len(runner_pids(tiny.phone)) == 1
    old, recent = f"{REMOTE_RUNS}/old", f"{REMOTE_RUNS}/recent"
    tiny.phone.shell(f"mkdir -p {old}/x {recent} && touch -d '2020-01-01 00:00:00' {old}")
    if ended_by == "another run":
        tiny.answer(tiny.work(run_id="mine"))
        assert not tiny.phone.exists(old)
        assert tiny.phone.exists(recent)
    else:
        discard(tiny.phone, "left")
        assert not tiny.phone.exists(f"{REMOTE_RUNS}/left")
    assert runner_pids(tiny.phone) == []
