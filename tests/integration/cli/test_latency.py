"""`driftloop latency` on a virtual phone. How fast anything is, is no matter of these tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices import adb
from devices.phone import Phone
from devices.runner import variants
from devices.runner.build import runner_binary
from devices.runner.client import run_folder
from devices.virtual import VirtualPhone
from harness.progress import Unseen
from harness.trials import contenders
from harness.trials.contenders import Entry
from harness.trials.timed_run import Measured, WatchedPhone, exclusion, measure
from tests.integration.cli.conftest import Driftloop, command

SLOW = Path(__file__).parents[3] / "fixtures" / "drifts" / "preludes" / "slow.h"
FEW_RUNS = """
[latency.trial]
level = 0.001
power = 0.999
floor_runs = 3
min_runs = 2
max_runs = 3
max_excluded = 2
cool_down_s = 0.0
"""
"""Errors are so rare that a test may hold them impossible; doubt is not."""


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """The default contract with one thread: none waits for another, however busy this machine."""
    file = tmp_path / "single.toml"
    file.write_text(
        'extends = "default"\nname = "single"\n[runtime]\nthreads = 1\nvision_threads = 1\n'
    )
    return file


@pytest.fixture
def asked(bundle: Path, pictures: Path, phone: Phone, single: Path, tmp_path: Path) -> list[object]:
    """A small trial of the pinned build against itself, in `tmp_path / "trial"`."""
    gates = tmp_path / "gates.toml"
    gates.write_text(FEW_RUNS)
    return [
        "latency", bundle, pictures, "--phone", phone.serial, "--images-per-run", 3,
        "--contract", single, "--baseline-contract", single,
        "--gates", gates, "--out", tmp_path / "trial",
    ]  # fmt: skip


@pytest.fixture
def state(x86_phone: VirtualPhone) -> Iterator[VirtualPhone]:
    """The fast phone, whose state is put back at the end."""
    before = x86_phone.state.read()
    yield x86_phone
    x86_phone.state.update(**before.model_dump(exclude={"sensors"}))


@pytest.fixture(scope="session")
def twice_as_slow(tmp_path_factory: pytest.TempPathFactory, x86_phone: VirtualPhone) -> Path:
    """A runner that takes twice the time for everything it computes."""
    prelude = tmp_path_factory.mktemp("prelude") / "twice.h"
    prelude.write_text(f"#define DRIFTLOOP_SLOWER 1.0\n{SLOW.read_text()}")
    variant = variants.choose(adb.find(x86_phone.serial).identity())
    return runner_binary(variant, prelude=prelude)


def trial(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "trial.json").read_text()))


def test_a_runner_against_itself_is_not_failed(
    phone: Phone, asked: list[object], driftloop: Driftloop, tmp_path: Path
) -> None:
    out = tmp_path / "trial"
    done = driftloop(*asked)
    assert done.returncode in (0, 3), done.stderr
    verdict = "PASS" if done.returncode == 0 else "INCONCLUSIVE"
    assert f"{verdict}: " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80

    record = trial(out)
    assert record["status"] == "finished"
    assert record["outcome"]["verdict"] == verdict
    turns = [run["contender"] for run in record["runs"] if run["phase"] == "trial"]
    assert turns[:4] == ["baseline", "candidate", "candidate", "baseline"]
    assert all(len(run["images_ms"]) == 3 for run in record["runs"])
    pids = [run["attestation"]["pid"] for run in record["runs"]]
    assert len(set(pids)) == len(pids)
    assert record["outcome"]["sentence"] in (out / "latency.md").read_text()
    assert "latency-" not in phone.shell("ls /data/local/tmp/driftloop/runs").stdout


def test_a_runner_twice_as_slow_is_never_passed(
    asked: list[object], twice_as_slow: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    done = driftloop(*asked, "--runner", twice_as_slow, "--json")
    outcome = json.loads(done.stdout)
    assert (done.returncode, outcome["verdict"]) in ((1, "FAIL"), (3, "INCONCLUSIVE"))
    shas = [trial(tmp_path / "trial")[side]["runner_sha256"] for side in ("baseline", "candidate")]
    assert shas[0] != shas[1]


def test_a_killed_trial_goes_on_where_it_stopped(
    asked: list[object], driftloop: Driftloop, tmp_path: Path
) -> None:
    out = tmp_path / "trial"
    host = subprocess.Popen(command(*asked), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "trial.json").exists() or len(trial(out)["runs"]) < 2:
        assert host.poll() is None
        time.sleep(0.05)
    host.kill()
    host.wait()
    before = trial(out)
    assert before["status"] == "started"

    assert driftloop(*asked).returncode in (0, 3)
    after = trial(out)
    assert after["trial_id"] == before["trial_id"]
    assert after["runs"][: len(before["runs"])] == before["runs"]

    finished = (out / "trial.json").read_text()
    driftloop(*asked)
    assert (out / "trial.json").read_text() == finished

    other = driftloop(*asked, "--seed", 5)
    assert other.returncode == 2
    assert "lies there; name another --out" in other.stderr


def test_a_throttled_phone_makes_no_claim(
    state: VirtualPhone, asked: list[object], driftloop: Driftloop
) -> None:
    state.state.update(thermal_status=3)
    done = driftloop(*asked, "--json")
    outcome = json.loads(done.stdout)
    assert (done.returncode, outcome["verdict"]) == (4, "INFRA")
    assert outcome["excluded"] == {"throttled": 3}
    assert outcome["ratio"] is None
    assert "left out: throttled, before it" in done.stderr


def test_a_lost_connection_and_a_new_start_of_the_phone_are_seen(
    state: VirtualPhone, phone: Phone, bundle: Path, pictures: Path, single: Path
) -> None:
    watched = WatchedPhone(phone)
    entry = Entry(bundle, str(single))
    subject = contenders.prepare(
        {"baseline": entry, "candidate": entry}, str(pictures), 60, "q8_0", 0, phone, Unseen()
    )["baseline"]

    def while_it_runs(run_id: str, disturb: Any) -> Measured:  # noqa: ANN401
        work = replace(subject.work, run_id=run_id)
        found: list[Measured] = []
        measuring = threading.Thread(
            target=lambda: found.append(measure(watched, work, lambda *_: None))
        )
        measuring.start()
        beat = f"{run_folder(work)}/0000/heartbeat.json"
        while measuring.is_alive() and not phone.exists(beat):
            time.sleep(0.01)
        disturb()
        measuring.join()
        return found[0]

    lost = while_it_runs("lost", lambda: os.kill(state.adbd_pid(), signal.SIGKILL))
    assert len(lost.images) == 60
    assert _word(lost) == "interrupted"

    started = while_it_runs("started", lambda: state.state.update(boot_id=str(uuid.uuid4())))
    assert _word(started) == "rebooted"

    undisturbed = while_it_runs("undisturbed", lambda: None)
    assert _word(undisturbed) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--runner", "nowhere"), "no runner at nowhere"),
        (("--images-per-run", 1), "the first only warms up"),
        (("--phone", "XYZ123"), "XYZ123: no phone of this serial"),
        (("--quant", "q2_k"), "no q2_k"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    asked: list[object], driftloop: Driftloop, wrong: tuple[object, ...], said: str
) -> None:
    done = driftloop(*asked, *wrong)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


def test_other_threads_are_no_fair_comparison(asked: list[object], driftloop: Driftloop) -> None:
    done = driftloop(*asked, "--contract", "default")
    assert done.returncode == 2
    assert "runtime.threads = 1, the candidate's 0" in done.stderr.splitlines()[-1]


def _word(measured: Measured) -> str | None:
    why = exclusion(measured, [])
    return None if why is None else why[0]
