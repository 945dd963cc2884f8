import json
import math
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.devices.disturbances import Disturbances
from driftloop.harness import contract, evaluation
from driftloop.harness.errors import RunFolderError
from driftloop.harness.records.journal import Journal, RunFolder
from driftloop.harness.records.observation import Observation
from driftloop.harness.records.record import ArmFailure, BundleRecord, DisturbancesRecord

from ..run_factory import (
    LABELS,
    attestation,
    case_records,
    observation,
    observations,
    phone_record,
    run_record,
)


def _path() -> str:
    """For a child process: this folder before whatever this process was given."""
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(Path(__file__).parents[1]), *([given] if given else [])])


def test_a_run_is_written_as_started_before_anything_runs(tmp_path: Path) -> None:
    with Journal(tmp_path / "run", run_record()):
        document = json.loads((tmp_path / "run" / "run.json").read_text())
    assert document["status"] == "started"
    assert document["schema_version"] == 1
    assert document["contract"]["pixels"]["size"] == 256
    assert document["contract_sha256"] == contract.load("default").sha256


def journalled(path: Path, *seen: Observation) -> Journal:
    """A journal with `seen`, closed again."""
    with Journal(path, run_record()) as journal:
        for one in seen:
            journal.append(one)
    return journal


def test_what_is_appended_is_read_back_in_order_numbers_that_are_not_finite_too(
    tmp_path: Path,
) -> None:
    seen = observations("torch", 5)
    odd = LABELS | {"wood": -math.inf, "fire": math.nan}
    journalled(tmp_path, *seen, observation("torch", 5, label_logprobs=odd))
    *back, last = RunFolder(tmp_path).read()
    assert back == seen
    assert last.label_logprobs["wood"] == -math.inf
    assert math.isnan(last.label_logprobs["fire"])


def test_missing_are_the_places_without_an_observation(tmp_path: Path) -> None:
    with Journal(tmp_path, run_record()) as journal:
        journal.append(observation("torch", 1))
        assert [case.id for case in journal.missing("torch", None)][:2] == ["case-00", "case-02"]
        assert len(journal.missing("desktop:f16", None)) == 24


def test_a_place_is_filled_once_also_after_a_resume(tmp_path: Path) -> None:
    with Journal(tmp_path, run_record()) as journal:
        journal.append(observation())
        with pytest.raises(RunFolderError, match="already holds torch on this host, session 0"):
            journal.append(observation())
    with Journal(tmp_path, run_record()) as journal, pytest.raises(RunFolderError):
        journal.append(observation())
    assert len(list(RunFolder(tmp_path).read())) == 1


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 2500))
def test_a_killed_writers_torn_line_is_dropped_and_made_anew(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("run")
    seen = observations("torch", 3)
    journal = journalled(path, *seen)
    whole = journal.observations_path.read_bytes()
    journal.observations_path.write_bytes(whole[: max(0, len(whole) - cut)])
    with Journal(path, run_record()) as journal:
        left = {case.id for case in journal.missing("torch", None)}
        for item in seen:
            if item.case_id in left:
                journal.append(item)
    assert journal.observations_path.read_bytes() == whole


def test_a_reader_leaves_the_torn_line_where_it_is(tmp_path: Path) -> None:
    journal = journalled(tmp_path, observation())
    with journal.observations_path.open("ab") as file:
        file.write(b'{"schema_version":1,"arm":"tor')
    before = journal.observations_path.read_bytes()
    assert len(list(RunFolder(tmp_path).read())) == 1
    assert journal.observations_path.read_bytes() == before


def test_a_damaged_line_in_the_middle_is_named_not_dropped(tmp_path: Path) -> None:
    journal = journalled(tmp_path, observation())
    whole = journal.observations_path.read_bytes()
    journal.observations_path.write_bytes(whole + b"not json\n" + whole)
    with pytest.raises(RunFolderError, match=":2: damaged"):
        list(RunFolder(tmp_path).read())
    with pytest.raises(RunFolderError, match=":2: damaged"):
        Journal(tmp_path, run_record())


SPARE = {"arm": "torch", "session": 0, "position": 0, "case_id": "case-00"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, "session 0, position 0, case 'case-00' is there already, at .*:1$"),
        ({"text": "fire", "label": "fire"}, "is there already, at .*:1$"),
        ({"position": 3}, "torch on this host, session 0, position 3.* was never asked for"),
        ({"session": 2**62}, "never asked for"),
        ({"position": 1}, "position 1, case 'case-00' was never asked for"),
        ({"arm": "desktop:q8_0"}, "desktop:q8_0 on this host.* never asked for"),
        ({"phone": "PHONE1"}, "torch on PHONE1.* never asked for"),
        ({"position": 1, "case_id": "case-01", "canary": "black"}, "never asked for"),
    ],
)
def test_a_line_that_the_run_did_not_write_is_named_and_is_bad_input(
    tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    journal = journalled(tmp_path, observation())
    line = observation(**(SPARE | changed)).model_dump_json()
    with journal.observations_path.open("a") as file:
        file.write(f"{line}\n")
    for read in (
        lambda: list(RunFolder(tmp_path).read()),
        lambda: Journal(tmp_path, run_record()),
        lambda: evaluation.load(tmp_path),
    ):
        with pytest.raises(RunFolderError, match=rf"observations\.jsonl:2: .*{says}") as caught:
            read()
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        ('"total":2000.0', '"total":-1.0'),
        ('"total":2000.0', '"total":NaN'),
        ('"id":10', f'"id":{2**70}'),
    ],
)
def test_numbers_that_no_run_can_have_seen_are_damage(
    tmp_path: Path, damage: tuple[str, str]
) -> None:
    journal = journalled(tmp_path, observation())
    text = journal.observations_path.read_text()
    assert damage[0] in text
    journal.observations_path.write_text(text.replace(*damage, 1))
    with pytest.raises(RunFolderError, match=":1: damaged"):
        list(RunFolder(tmp_path).read())


def test_what_disturbed_a_phone_adds_up_over_the_commands_of_a_run(tmp_path: Path) -> None:
    for _ in range(2):
        with Journal(tmp_path, run_record()) as journal:
            seen = Disturbances(link_breaks=1, waited_s=2.5, starts=3)
            journal.disturbed("A", seen)
            seen.remark("a line")
            seen.remark("a line")
            journal.disturbed("B", Disturbances(starts=1))
            journal.disturbed("A", seen)
    by_serial = {one.serial: one for one in RunFolder(tmp_path).record().disturbances}
    assert by_serial["A"] == DisturbancesRecord(
        serial="A", link_breaks=2, waited_s=5.0, starts=6, remarks=("a line",)
    )
    assert by_serial["B"].starts == 2


def test_a_resumed_run_keeps_its_id_start_and_attestations_and_its_phones_add_up(
    tmp_path: Path,
) -> None:
    arms = ("desktop:q8_0", "phone:q8_0")
    with Journal(tmp_path, run_record(arms, [phone_record("A")])) as journal:
        journal.attest(attestation())
        journal.fail(ArmFailure(arm=arms[0], phone=None, kind="ArmUnavailable", detail="no llama"))
    started = datetime(2027, 1, 1, tzinfo=UTC)
    later = run_record(arms, [phone_record("B")], run_id="run-2", started_at=started)
    with Journal(tmp_path, later):
        record = RunFolder(tmp_path).record()
    assert (record.run_id, record.started_at.year) == ("run-1", 2026)
    assert record.attestations == (attestation(),)
    assert record.failures == ()
    assert [phone.serial for phone in record.phones] == ["A", "B"]


def test_an_attestation_is_kept_once_a_build_not_once_a_process(tmp_path: Path) -> None:
    with Journal(tmp_path, run_record()) as journal:
        journal.attest(attestation(pid=1))
        journal.attest(attestation(pid=2, load_ms=99.0))
        journal.attest(attestation(pid=3, llama_commit="another"))
        commits = [item.attestation.llama_commit for item in journal.current.attestations]
    assert commits == ["0c1e57098", "another"]


def test_a_finished_run_says_so(tmp_path: Path) -> None:
    with Journal(tmp_path, run_record()) as journal:
        journal.finish(datetime(2026, 1, 2, 4, tzinfo=UTC))
    record = RunFolder(tmp_path).record()
    assert (record.status, record.finished_at) == ("finished", datetime(2026, 1, 2, 4, tzinfo=UTC))


def as_shipped() -> dict[str, Any]:
    other = contract.load("as-shipped")
    return {"contract": other, "contract_sha256": other.sha256}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (as_shipped(), "contract differs in pixels.channels"),
        ({"bundle": BundleRecord(path="b", sha256="e" * 64, summary={})}, "bundle is bundle (bbbb"),
        ({"cases": case_records(23)}, "cases differ (24 there, 23 asked for)"),
        ({"cases": tuple(reversed(case_records()))}, "cases differ"),
        ({"arms": ("torch",)}, "arms are torch,desktop:f16"),
        ({"seed": 8}, "seed is 7"),
        (
            {"training": contract.load("as-shipped")},
            "training contract differs in pixels.channels",
        ),
    ],
)
def test_another_runs_folder_is_refused_and_what_differs_named(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    own = run_record(training=contract.load("default"))
    with Journal(tmp_path, own):
        pass
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(RunFolderError) as caught:
        Journal(tmp_path, run_record(**({"training": own.training} | changed)))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "run.json").read_bytes() == before
    with Journal(tmp_path, own):
        pass


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    refused = pytest.raises(RunFolderError, match="another driftloop process")
    with Journal(tmp_path, run_record()), refused:
        Journal(tmp_path, run_record())
    with Journal(tmp_path, run_record()):
        pass


def test_observations_without_a_run_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "observations.jsonl").write_text("precious\n")
    with pytest.raises(RunFolderError, match=r"no run\.json"):
        Journal(tmp_path, run_record())
    assert (tmp_path / "observations.jsonl").read_text() == "precious\n"


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 2}', "[]"])
def test_a_damaged_run_json_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(
        RunFolderError, match=r"run\.json: damaged, or of another version"
    ) as caught:
        RunFolder(tmp_path).record()
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_run_and_a_file_in_its_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run folder"):
        RunFolder(tmp_path / "none").record()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be used as a run folder"):
        Journal(tmp_path / "file", run_record())


def test_a_full_disk_is_one_line_and_leaves_whole_lines(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from driftloop.harness.errors import RunFolderError
from driftloop.harness.records.journal import Journal
from run_factory import observations, run_record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(sys.argv[1], run_record())
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    for item in observations("torch"):
        journal.append(item)
except RunFolderError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": _path()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "observations.jsonl cannot be written" in done.stdout
    content = (tmp_path / "observations.jsonl").read_bytes()
    assert content.endswith(b"\n")
    assert 0 < len(list(RunFolder(tmp_path).read())) < 24


def test_threads_may_append_at_the_same_time(tmp_path: Path) -> None:
    serials = ["A", "B", "C"]
    phones = [phone_record(serial) for serial in serials]
    with Journal(tmp_path, run_record(("desktop:q8_0", "phone:q8_0"), phones)) as journal:

        def deliver(serial: str) -> None:
            for item in observations("phone:q8_0", phone=serial):
                journal.append(item)

        workers = [threading.Thread(target=deliver, args=(serial,)) for serial in serials]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    slots = [item.slot for item in RunFolder(tmp_path).read()]
    assert len(slots) == len(set(slots)) == 72


def test_sigkill_of_the_writer_leaves_whole_lines_and_a_free_folder(tmp_path: Path) -> None:
    script = """
import sys
from driftloop.harness.records.journal import Journal
from run_factory import case_records, observations, run_record
journal = Journal(sys.argv[1], run_record(cases=case_records(3000)))
for case in journal.missing("torch", None):
    index = case.session * 3 + case.position
    journal.append(observations("torch", index + 1)[-1] if index < 5 else
        observations("torch", 1)[0].model_copy(
            update={"session": case.session, "position": case.position, "case_id": case.id}))
    print(index, flush=True)
"""
    for round_ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": _path()},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(5 + round_)]
        writer.send_signal(signal.SIGKILL)
        writer.stdout.close()
        writer.wait()
        with Journal(tmp_path, run_record(cases=case_records(3000))):
            places = [item.session * 3 + item.position for item in RunFolder(tmp_path).read()]
        assert len(places) == len(set(places))
        assert set(acknowledged) <= set(places)
