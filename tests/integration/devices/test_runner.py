"""The runner on a genuine adbd: answers, faults, and every way to lose it on the way."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devices import adb
from devices.errors import RunnerFailed
from devices.hashing import file_sha256
from devices.phone import Phone
from devices.runner import variants
from devices.runner.attempt import REMOTE_RUNS
from devices.runner.client import Limits, discard, run
from devices.runner.protocol import (
    Attestation,
    Finished,
    Heartbeat,
    ImageResult,
)
from devices.runner.work import Work, WorkImage
from devices.virtual import VirtualPhone
from harness.bundle import Bundle
from tests.runner_work import ONE_THREAD, answers, many, places, work


def runner_pids(phone: Phone) -> list[int]:
    """Pids, as the phone counts them, of runners of any run."""
    printed = phone.shell(
        "for file in /proc/[0-9]*/cmdline; do echo ${file#/proc/} $(tr '\\0' ' ' <$file); done",
        check=False,
    ).stdout
    rows = re.findall(rf"^(\d+)/cmdline .*{REMOTE_RUNS}/\S+/request\.json", printed, re.MULTILINE)
    return [int(pid) for pid in rows]


def test_a_run_yields_attestation_then_each_image_then_finished(
    virtual_phone: VirtualPhone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    phone = adb.find(virtual_phone.serial)
    todo = work(tiny, phone, pictures[:3])
    discard(phone, todo.run_id)
    attestation, *images, finished = list(run(phone, todo))
    assert isinstance(attestation, Attestation)
    assert isinstance(finished, Finished)
    assert finished.images == 3
    assert places(images) == [(0, 0), (0, 1), (0, 2)]
    for image, wanted in zip(images, pictures, strict=False):
        assert isinstance(image, ImageResult)
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


def test_the_attestation_names_the_build_the_machine_and_the_models(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = work(tiny, device, pictures[:1], threads=3)
    attestation = next(run(device, todo))
    assert isinstance(attestation, Attestation)
    variant = variants.choose(device.identity())
    assert attestation.variant == variant.name
    assert set(variant.needs) <= set(attestation.cpu_features_found)
    assert {option.removeprefix("GGML_") for option in variant.ggml} - {"SSE42"} <= set(
        attestation.cpu_features_used
    )
    assert attestation.backends == ["CPU"]
    assert attestation.threads == 3
    assert attestation.text_model_sha256 == todo.text_model_sha256
    assert attestation.mmproj_sha256 == todo.mmproj_sha256
    # the process itself, its heartbeat, and ggml's threads while the model warmed up
    assert len(attestation.placement) > 2
    assert all(re.fullmatch(r"[\d,-]+", place.cpus_allowed) for place in attestation.placement)


def test_split_evaluates_every_tile_and_single_the_overview_alone(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    found = {}
    for tiling in ("single", "split"):
        results = list(run(device, work(tiny, device, pictures[:1], tiling=tiling)))
        found[tiling] = next(one for one in results if isinstance(one, ImageResult))
    single, split = found["single"], found["split"]
    assert (single.grid, single.image_tokens) == ((0, 0), 4)
    assert (split.grid, split.image_tokens) == ((2, 2), 20)
    assert split.timings_ms is not None
    assert len(split.timings_ms.encode) == 5
    # the same text after the image, the same overview, one frame around it
    assert split.prompt_ids[-len(single.prompt_ids) :] == single.prompt_ids


def test_one_bad_picture_is_a_fault_of_its_own_and_the_rest_is_answered(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[1].pixels_path.read_bytes()[:300])
    images = [pictures[0], WorkImage("broken", 0, 1, broken, "0" * 64), pictures[2]]
    results = [
        one for one in run(device, work(tiny, device, images)) if isinstance(one, ImageResult)
    ]
    assert [one.error.kind if one.error else None for one in results] == [
        None,
        "image_decode",
        None,
    ]
    assert results[1].pixels_sha256 is None
    assert results[1].tokens == []


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_encoded(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    results = list(run(device, work(tiny, device, pictures[:1], context=32)))
    image = next(one for one in results if isinstance(one, ImageResult))
    assert image.error is not None
    assert image.error.kind == "context_full"
    assert len(image.prompt_ids) == 32
    assert image.tokens == []
    assert image.timings_ms is not None
    assert image.timings_ms.encode == []


def test_an_answer_that_fills_the_context_stops_and_keeps_its_tokens(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    # an image without a question makes the tiny model repeat itself: 7 ids of prompt, room for one
    todo = work(tiny, device, pictures[:1], context=8)
    todo = replace(todo, settings=replace(todo.settings, prompt="<__media__>"))
    image = next(one for one in run(device, todo) if isinstance(one, ImageResult))
    assert image.error is not None
    assert image.error.kind == "context_full"
    assert image.stop_reason == "error"
    assert len(image.prompt_ids) == 7
    assert len(image.tokens) == 2
    assert image.text == "".join(token.piece for token in image.tokens)


@pytest.mark.parametrize(
    ("broken", "kind"), [("text_model", "model_load"), ("mmproj", "mmproj_load")]
)
def test_a_damaged_model_ends_the_run_with_its_kind(
    device: Phone,
    tiny: Bundle,
    pictures: list[WorkImage],
    tmp_path: Path,
    broken: str,
    kind: str,
) -> None:
    todo = work(tiny, device, pictures[:1])
    damaged = tmp_path / "damaged.gguf"
    whole = getattr(todo, broken).read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    todo = replace(todo, **{broken: damaged, f"{broken}_sha256": file_sha256(damaged)})
    with pytest.raises(RunnerFailed) as caught:
        list(run(device, todo))
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


def test_a_finished_run_is_read_again_without_running_anything(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = work(tiny, device, pictures[:3])
    first = list(run(device, todo))
    again = list(run(device, todo))
    assert again == first
    assert len(device.shell(f"ls {REMOTE_RUNS}/test/*").stdout.split()) == 1


def test_other_settings_under_the_same_name_are_another_run(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    first = list(run(device, work(tiny, device, pictures[:1])))
    other = list(run(device, work(tiny, device, pictures[:1], cache_type_k="f16")))
    assert [type(one) for one in other] == [type(one) for one in first]
    logprobs = [
        next(one for one in results if isinstance(one, ImageResult)).label_logprobs
        for results in (first, other)
    ]
    assert logprobs[0] != logprobs[1]


def test_the_end_of_adbd_costs_no_answer(
    device: Phone, x86_phone: VirtualPhone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = work(tiny, device, many(pictures, 90), **ONE_THREAD)
    seen = []
    for line in run(device, todo):
        seen.append(line)
        if len(seen) in {10, 40}:
            os.kill(x86_phone.adbd_pid(), signal.SIGKILL)
    assert sorted(places(seen)) == [(one.session, one.position) for one in todo.images]
    # one attestation: the runner was never started again
    assert sum(isinstance(line, Attestation) for line in seen) == 1


_HOST = """
import pickle, sys
from devices import adb
from devices.runner.client import run
serial, path = sys.argv[1:]
todo = pickle.load(open(path, "rb"))
for line in run(adb.find(serial), todo):
    print(line.record, flush=True)
"""


def test_a_killed_host_finds_every_answer_exactly_once_when_it_comes_back(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], tmp_path: Path
) -> None:
    todo = work(tiny, device, many(pictures, 90), **ONE_THREAD)
    undisturbed = list(
        run(device, work(tiny, device, many(pictures, 90), run_id="undisturbed", **ONE_THREAD))
    )
    saved = tmp_path / "work.pickle"
    saved.write_bytes(pickle.dumps(todo))
    for lines in (0, 1, 8):
        with subprocess.Popen(
            [sys.executable, "-c", _HOST, device.serial, str(saved)],
            stdout=subprocess.PIPE,
            text=True,
        ) as host:
            assert host.stdout is not None
            for _ in range(lines):
                host.stdout.readline()
            if lines == 0:
                time.sleep(0.7)  # somewhere between its start and the runner's
            host.kill()
    seen = list(run(device, todo))
    assert sorted(places(seen)) == [(one.session, one.position) for one in todo.images]
    assert answers(seen) == answers(undisturbed)


def signalled(phone: Phone, todo: Work, name: str, after: int) -> Iterator[object]:
    """`run`, its runner getting a signal after so many lines."""
    for count, line in enumerate(run(phone, todo, limits=Limits(heartbeat_s=3.0)), start=1):
        yield line
        if count == after:
            for pid in runner_pids(phone):
                phone.shell(f"kill -{name} {pid}")


def test_a_dead_runner_is_reported_and_the_next_call_does_the_rest(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = work(tiny, device, many(pictures, 90), **ONE_THREAD)
    with pytest.raises(RunnerFailed) as caught:
        list(signalled(device, todo, "KILL", after=5))
    assert caught.value.kind == "died"
    assert "stage" in caught.value.detail
    again = list(run(device, todo))
    assert len(set(places(again))) == len(places(again)) == len(todo.images)
    assert sum(isinstance(line, Attestation) for line in again) == 2


def test_a_runner_without_a_sign_of_life_is_ended(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = work(tiny, device, many(pictures, 90), **ONE_THREAD)
    with pytest.raises(RunnerFailed) as caught:
        list(signalled(device, todo, "STOP", after=2))
    assert caught.value.kind == "hung"
    assert runner_pids(device) == []


def test_the_heart_beats_at_least_once_a_second(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    beats: list[tuple[float, Heartbeat]] = []
    todo = work(tiny, device, many(pictures, 60), tiling="split", **ONE_THREAD)
    list(run(device, todo, lambda beat: beats.append((time.monotonic(), beat))))
    first, last = beats[0], beats[-1]
    elapsed_s = last[0] - first[0]
    assert last[1].beat - first[1].beat >= int(elapsed_s)
    assert last[1].image > 0


def test_a_runner_that_another_run_left_behind_is_ended(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    left = run(device, work(tiny, device, many(pictures, 180), run_id="left", **ONE_THREAD))
    next(left)
    left.close()
    assert len(runner_pids(device)) == 1
    list(run(device, work(tiny, device, pictures[:1], run_id="mine")))
    assert runner_pids(device) == []


def test_a_discarded_run_leaves_nothing_on_the_phone(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = work(tiny, device, many(pictures, 180), **ONE_THREAD)
    running = run(device, todo)
    next(running)
    running.close()
    discard(device, todo.run_id)
    assert runner_pids(device) == []
    assert not device.exists(f"{REMOTE_RUNS}/{todo.run_id}")
