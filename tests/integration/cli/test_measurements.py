"""`driftloop latency`, `tokens` and `remedy`. No test depends on how fast anything is."""

from __future__ import annotations

import io
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
from pydantic import TypeAdapter
from rich.console import Console

from driftloop.cli.measurements import remedy_view
from driftloop.devices import adb
from driftloop.devices.phone import Phone
from driftloop.devices.runner import variants
from driftloop.devices.runner.build import runner_binary
from driftloop.devices.runner.client import run_folder
from driftloop.devices.virtual import VirtualPhone
from driftloop.fixtures import textures
from driftloop.fixtures.drifts.release import PRELUDES, contract
from driftloop.harness.progress import Unseen
from driftloop.harness.remedy import Remedies
from driftloop.harness.trials.timed_run import Measured, exclusion, measure
from driftloop.harness.trials.trial import Entry, TrialRequest, prepare
from tests.integration.cli.conftest import Driftloop, command, read_json, width
from tests.runner_work import ONE_THREAD

REMEDY_IMAGES = 12
SLOW = PRELUDES / "slow.h"
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
def single(tmp_path: Path) -> str:
    """The default contract with one thread: none waits for another, however busy this machine."""
    return contract({"runtime": ONE_THREAD}, tmp_path / "single.toml")


@pytest.fixture
def asked(bundle: Path, pictures: Path, phone: Phone, single: str, tmp_path: Path) -> list[object]:
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


def test_a_runner_against_itself_is_not_failed(
    phone: Phone, asked: list[object], driftloop: Driftloop, tmp_path: Path
) -> None:
    out = tmp_path / "trial"
    done = driftloop(*asked)
    assert done.returncode in (0, 3), done.stderr
    verdict = "PASS" if done.returncode == 0 else "INCONCLUSIVE"
    assert f"{verdict}: " in done.stdout
    assert width(done.stdout) <= 80

    record = read_json(out / "trial.json")
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
    record = read_json(tmp_path / "trial" / "trial.json")
    assert record["baseline"]["runner_sha256"] != record["candidate"]["runner_sha256"]


def test_a_killed_trial_goes_on_where_it_stopped(
    asked: list[object], driftloop: Driftloop, tmp_path: Path
) -> None:
    out = tmp_path / "trial"
    host = subprocess.Popen(command(*asked), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "trial.json").exists() or len(read_json(out / "trial.json")["runs"]) < 2:
        assert host.poll() is None
        time.sleep(0.05)
    host.kill()
    host.wait()
    before = read_json(out / "trial.json")
    assert before["status"] == "started"

    assert driftloop(*asked).returncode in (0, 3)
    after = read_json(out / "trial.json")
    assert after["trial_id"] == before["trial_id"]
    assert after["runs"][: len(before["runs"])] == before["runs"]

    finished = (out / "trial.json").read_text()
    driftloop(*asked)
    assert (out / "trial.json").read_text() == finished

    other = driftloop.ok(*asked, "--seed", 5, status=2)
    assert "lies there; name another --out" in other.stderr


def test_a_throttled_phone_makes_no_claim(
    state: VirtualPhone, asked: list[object], driftloop: Driftloop
) -> None:
    state.state.update(thermal_status=3)
    done = driftloop.ok(*asked, "--json", status=4)
    outcome = json.loads(done.stdout)
    assert outcome["verdict"] == "INFRA"
    assert outcome["excluded"] == {"throttled": 3}
    assert outcome["ratio"] is None
    assert "left out: throttled, before it" in done.stderr


def test_a_lost_connection_and_a_new_start_of_the_phone_are_seen(
    state: VirtualPhone, phone: Phone, bundle: Path, pictures: Path, single: str, tmp_path: Path
) -> None:
    entry = Entry(bundle, single)
    request = TrialRequest(phone.serial, entry, entry, str(pictures), tmp_path, images_per_run=60)
    subject = prepare(request, phone, Unseen())["baseline"]

    def while_it_runs(run_id: str, disturb: Any) -> Measured:  # noqa: ANN401
        work = replace(subject.work, run_id=run_id)
        found: list[Measured] = []
        measuring = threading.Thread(
            target=lambda: found.append(measure(phone, work, lambda *_: None))
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
        (("--contract", "default"), "runtime.threads = 1, the candidate's 0"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    asked: list[object], driftloop: Driftloop, wrong: tuple[object, ...], said: str
) -> None:
    done = driftloop.ok(*asked, *wrong, status=2)
    assert said in done.stderr.splitlines()[-1]


def _word(measured: Measured) -> str | None:
    why = exclusion(measured, [])
    return None if why is None else why[0]


def test_a_prompt_that_leaves_too_little_context_is_shown_beside_the_guides_estimate(
    bundle: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    small = contract({"runtime": {"context": 70, **ONE_THREAD}}, tmp_path / "small.toml")
    said = driftloop.ok("tokens", bundle, "--contract", small).stdout
    rows = {line[:20].strip(): line.split() for line in said.splitlines() if line.strip()}
    assert rows["it fits"][-2:] == ["yes", "no"]
    assert rows["left for the answer"][-3:] == ["~11", "32", "12"]
    assert rows["prompt"][-3:] == ["~21", "32", "58"]
    assert width(said) <= 80


@pytest.fixture(scope="module")
def remedies(run: Path, driftloop: Driftloop) -> dict[str, Any]:
    """What `driftloop remedy --json` says of that run: some forty seconds' work."""
    return dict(driftloop.json("remedy", run))


@pytest.fixture(scope="module")
def run(deep_bundle: Path, driftloop: Driftloop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the arms on this host from f16 to what the app ships."""
    folder = tmp_path_factory.mktemp("remedy")
    textures.save(folder / "images", REMEDY_IMAGES, seed=29)
    arms = "desktop:f16,desktop:q8_0,desktop:q8_0+app"
    driftloop("run", deep_bundle, folder / "images", "--arms", arms, "--out", folder / "run")
    return folder / "run"


def test_dearer_caches_and_weights_cost_memory_and_bring_the_price_down(
    remedies: dict[str, Any],
) -> None:
    cache, weights = remedies["cache"], remedies["weights"]
    assert [row["what"] for row in cache] == [
        f"KV cache in {one}" for one in ("q4_0", "q8_0", "f16")
    ]
    assert [row["what"].partition(" (")[0] for row in weights] == [
        "all in q8_0",
        "vision tower in f16",
        "15 of 60 parts of the text model in f16",
        "30 of 60 parts of the text model in f16",
    ]
    for rows in (cache, weights):
        assert all(row["cases"] == REMEDY_IMAGES for row in rows)
        assert rows[0]["mib"] == 0
        assert all(row["mib"] > 0 for row in rows[1:])
    assert weights[2]["mib"] < weights[3]["mib"]
    assert cache[0]["nats"] > 2 * max(row["nats"] for row in cache[1:])
    assert min(row["nats"] for row in weights[1:]) < weights[0]["nats"]


def test_the_tables_fit_a_terminal(remedies: dict[str, Any]) -> None:
    shown = TypeAdapter(Remedies).validate_python(remedies)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(*remedy_view(shown), sep="\n")
    said = console.export_text()
    assert "coin tosses" in said
    assert f"Of the {REMEDY_IMAGES} nearest to another label, of {REMEDY_IMAGES}." in said
    assert width(said) <= 80


def test_a_bundle_that_is_no_longer_the_run_s_is_bad_input(
    run: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    record = read_json(run / "run.json")
    record["bundle"]["sha256"] = "0" * 64
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "observations.jsonl").touch()
    done = driftloop.ok("remedy", tmp_path, status=2)
    assert "no longer the bundle" in done.stderr
