"""A run compared with an earlier one: what is compared, and what is refused with a reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from driftloop.cli.app import app
from driftloop.harness import evaluation
from driftloop.harness.errors import BadInput
from driftloop.reports.changes import Changes, changes, refuse_if_nothing
from tests.unit.reports import runs
from tests.unit.reports.runs import Writer

NEW_SERIAL = "127.0.0.1:1"


@pytest.fixture
def two_phones(run_writer: Writer) -> Writer:
    return lambda **fields: run_writer(phones=runs.BOTH, **fields)


@pytest.fixture
def host(run_writer: Writer) -> Writer:
    return lambda **fields: run_writer(
        **{"phones": (), "arms": ("torch", "desktop:f16"), "pictures": False} | fields
    )


def _changes(
    now: runs.RunWriter,
    before: runs.RunWriter,
    *,
    baseline: str | None = "1.3",
    record: Callable[[dict[str, Any]], object] = lambda _: None,
    lines: Callable[[str], str] = lambda line: line,
) -> Changes:
    """As releases, unless the earlier has no name.

    `record`, `lines`: edit this run's `run.json` and every line of its `observations.jsonl`.
    """
    folder = now.write()
    edited = json.loads((folder / "run.json").read_text("utf-8"))
    record(edited)
    (folder / "run.json").write_text(json.dumps(edited))
    seen = (folder / "observations.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "observations.jsonl").write_text("".join(map(lines, seen)))
    return changes(evaluation.load(folder), evaluation.load(before.write()), baseline)


def _refused(found: Changes) -> dict[str, tuple[str, ...]]:
    return {one.part: one.reasons for one in found.refused}


def test_a_flip_on_a_phone_changes_answers_accuracy_agreement_and_verdict(
    run_writer: Writer,
) -> None:
    found = _changes(run_writer(answers=runs.FLIP), run_writer(), baseline=None)
    assert (found.verdict_before, found.verdict_now) == ("PASS", "FAIL")
    phone = found.arms[-1]
    assert (phone.shared, phone.changed) == (24, 1)
    assert (phone.answers[0].before, phone.answers[0].now) == ("fire", "water")
    assert phone.right_before.count - phone.right_now.count == 1
    assert found.hops[-1].agreement_now == "23 of 24"
    assert found.differences == ()


def test_new_and_fixed_flips_are_told_from_other_changes(host: Writer) -> None:
    arm = ("desktop:f16", None)
    before = host(answers={(*arm, 3): "land"})
    now = host(answers={(*arm, 7): "water", (*arm, 8): "water", ("torch", None, 8): "water"})
    torch, desktop = _changes(now, before).arms
    assert (torch.reference, torch.changed) == (None, 1)
    assert desktop.reference == "torch"
    assert desktop.changed == 3
    (new,) = desktop.new_flips
    (fixed,) = desktop.fixed_flips
    assert (new.case_id, new.before, new.now) == ("fire/007.png", "fire", "water")
    assert (fixed.case_id, fixed.before, fixed.now) == ("wood/003.png", "land", "wood")


def test_drifts_appear_stay_and_go_away(run_writer: Writer) -> None:
    moved = dict.fromkeys(("desktop:f16", "desktop:q8_0", runs.APP_ARM, runs.PHONE_ARM), 0.3)
    clean, broken = run_writer(), run_writer(apart=moved)
    (appeared,) = _changes(broken, clean).drifts
    assert (appeared.change, appeared.blame.hop, appeared.blame.stage) == (
        "appeared", "conversion", "embed",
    )  # fmt: skip
    clean, broken = run_writer(), run_writer(apart=moved)
    assert [one.change for one in _changes(clean, broken).drifts] == ["went away"]
    (stayed,) = _changes(run_writer(apart=moved), run_writer(apart=moved)).drifts
    assert (stayed.change, stayed.cases_before) == ("stayed", 24)


def test_a_drift_of_a_hop_that_was_not_run_before_has_not_appeared(host: Writer) -> None:
    arms = ("torch", "desktop:f16", "desktop:q8_0")
    (drift,) = _changes(host(arms=arms, apart={"desktop:q8_0": 0.3}), host()).drifts
    assert (drift.change, drift.blame.hop) == ("not run before", "quantization")


def test_times_and_memory_are_compared_phone_by_phone(two_phones: Writer) -> None:
    found = _changes(two_phones(milliseconds=2640.0), two_phones())
    assert [one.phone for one in found.phones] == [runs.REAL_PHONE, runs.VIRTUAL_PHONE]
    for one in found.phones:
        assert one.image_median_ms is not None
        assert one.image_median_ms.change == pytest.approx(0.1)
        assert one.session_p90_ms is not None
        assert one.session_p90_ms.change == pytest.approx(0.1)
        assert one.memory_peak_kib is not None
        assert one.memory_peak_kib.change == 0.0


@pytest.mark.parametrize(
    ("now", "worse"),
    [
        ({}, set()),
        ({"answers": runs.FLIP}, {"gate", "drift"}),
        ({"apart": runs.MOVED}, {"gate", "drift"}),
        ({"milliseconds": 2500.0}, set()),
        ({"milliseconds": 2700.0}, {"slower"}),
    ],
)
def test_what_got_worse_sets_the_exit_code_that_is_asked_for(
    two_phones: Writer, now: dict[str, Any], worse: set[str]
) -> None:
    folders = [str(two_phones(**fields).write()) for fields in (now, {})]
    for kind in ("gate", "drift", "slower"):
        done = CliRunner().invoke(app, ["compare", *folders, "--fail-on", kind])
        assert done.exit_code == (kind in worse)
        assert (f"worse than before: {kind}" in done.stderr) == (kind in worse)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("model", "Pixel 9", "phone: Google Pixel arm64-v8a before, Google Pixel 9 arm64-v8a"),
        ("android_version", "15", "Android build: 14 before, 15 now"),
        ("sdk", 35, "Android build: 14 before, 14, 35 now"),
        ("threads", 2, "threads: 4, vision 4 before, 2, vision 4 now"),
        ("power_source", "battery", "power: usb before, battery now"),
    ],
)
def test_times_under_other_conditions_are_refused_though_answers_are_compared(
    run_writer: Writer, field: str, value: object, reason: str
) -> None:
    def record(run: dict[str, Any]) -> None:
        for found in (*run["phones"], *(one["attestation"] for one in run["attestations"])):
            if field in found:
                found[field] = value

    found = _changes(
        run_writer(),
        run_writer(),
        record=record,
        lines=lambda line: line.replace('"usb"', f'"{value}"') if field == "power_source" else line,
    )
    assert found.phones == ()
    ((part, (said,)),) = _refused(found).items()
    assert part == "times"
    assert said.startswith(reason)
    assert [arm.shared for arm in found.arms] == [24] * 5


def test_a_virtual_phone_is_known_again_under_another_serial(two_phones: Writer) -> None:
    def renamed(record: dict[str, Any]) -> None:
        record["phones"][1]["serial"] = NEW_SERIAL
        for one in record["attestations"]:
            one["phone"] = one["phone"] and one["phone"].replace(runs.VIRTUAL_PHONE, NEW_SERIAL)

    found = _changes(
        two_phones(),
        two_phones(),
        record=renamed,
        lines=lambda line: line.replace(runs.VIRTUAL_PHONE, NEW_SERIAL),
    )
    assert [(one.phone, one.phone_before) for one in found.phones] == [
        (runs.REAL_PHONE, runs.REAL_PHONE),
        (NEW_SERIAL, runs.VIRTUAL_PHONE),
    ]
    assert [hop.agreement_before for hop in found.hops] == ["24 of 24"] * 5


def test_another_contract_is_refused_for_releases_and_said_for_other_runs(host: Writer) -> None:
    reason = "contract, pixels.channels: rgb before, bgr now"
    found = _changes(host(contract="as-shipped"), host())
    assert found.arms == found.hops == found.phones == ()
    assert _refused(found)["answers"] == (reason,)
    with pytest.raises(BadInput, match=f"cannot be compared: {re.escape(reason)}"):
        refuse_if_nothing(found)
    now = host(contract="as-shipped", answers={("torch", None, 3): "land"})
    found = _changes(now, host(), baseline=None)
    assert found.refused == ()
    assert found.arms[0].changed > 0
    assert found.differences[0] == reason


def test_times_under_another_contract_are_still_compared(two_phones: Writer) -> None:
    found = _changes(two_phones(contract="as-shipped"), two_phones())
    assert len(found.phones) == 2
    assert _refused(found).keys() == {"drifts", "answers"}
    refuse_if_nothing(found)


def test_another_prompt_is_refused_arm_by_arm(run_writer: Writer) -> None:
    found = _changes(
        run_writer(),
        run_writer(),
        lines=lambda line: (
            line.replace('"prompt_ids":[1,', '"prompt_ids":[1,7,')
            if runs.PHONE_ARM in line
            else line
        ),
    )
    (refusal,) = found.refused
    assert refusal.where == (f"{runs.PHONE_ARM} on {runs.REAL_PHONE}",)
    assert refusal.reasons == ("prompt ids differ in 24 of 24 shared cases",)
    assert len(found.arms) == 4


def test_runs_that_share_nothing_cannot_be_compared(host: Writer) -> None:
    now, before = (host(arms=(arm,), labelled=False) for arm in ("torch", "desktop:f16"))
    with pytest.raises(BadInput, match="share no hop, arm or phone"):
        refuse_if_nothing(_changes(now, before))


@pytest.mark.parametrize(("contract", "shared"), [("default", 0), ("as-shipped", 24)])
def test_other_pixels_are_another_picture_unless_the_contract_made_them(
    host: Writer, contract: str, shared: int
) -> None:
    found = _changes(host(contract=contract, picture_offset=24), host(), baseline=None)
    assert [arm.shared for arm in found.arms] == [shared, shared]


def test_what_else_differs_is_said(run_writer: Writer) -> None:
    def other(record: dict[str, Any]) -> None:
        record["bundle"]["sha256"] = "8a" * 32
        record["packages"]["torch"] = "2.14.0"

    found = _changes(run_writer(), run_writer(), record=other)
    assert found.differences == (
        f"bundle: {'9b' * 6} before, {'8a' * 6} now",
        "torch: 2.13.0 before, 2.14.0 now",
    )
    assert found.refused == ()
