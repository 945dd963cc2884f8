"""A run held against an earlier one: what is compared, and what is refused with a reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from harness.errors import BadInput
from reports import terminal
from reports.between import arms_between, between, refuse_if_nothing
from reports.between.document import Between
from tests.unit.reports.run_reports import summarized

if TYPE_CHECKING:
    from tests.unit.reports.conftest import RunWriter

Writer = Callable[..., "RunWriter"]
REAL_PHONE, VIRTUAL_PHONE = "R5CT10ABCDE", "127.0.0.1:5581"
PHONE_ARM, APP_ARM = "phone:q8_0+app", "desktop:q8_0+app"
WRONG = {(PHONE_ARM, REAL_PHONE, 7): "water"}


def _between(now: Path, before: Path) -> Between:
    """As releases, the earlier one with a name."""
    return between(summarized(now), summarized(before), "1.3")


def _edited(run: Path, changed: Callable[[dict[str, Any]], None]) -> Path:
    """The same run with another `run.json`."""
    import json

    record = json.loads((run / "run.json").read_text("utf-8"))
    changed(record)
    (run / "run.json").write_text(json.dumps(record))
    return run


def _refused(found: Between) -> dict[str, tuple[str, ...]]:
    return {one.part: one.reasons for one in found.refused}


def test_new_and_fixed_flips_are_told_from_other_changes(run_writer: Writer) -> None:
    app = ("torch", "desktop:q8_0")
    before = run_writer(arms=app, phones=(), answers={("desktop:q8_0", None, 3): "land"})
    now = run_writer(
        arms=app,
        phones=(),
        answers={
            ("desktop:q8_0", None, 7): "water",
            ("desktop:q8_0", None, 8): "water",
            ("torch", None, 8): "water",
        },
    )
    torch, quantized = _between(now.write(), before.write()).arms
    assert (torch.reference, torch.changed) == (None, 1)
    assert quantized.reference == "torch"
    assert quantized.changed == 3
    (new,) = quantized.new_flips
    (fixed,) = quantized.fixed_flips
    assert (new.case_id, new.before, new.now) == ("fire/007.png", "fire", "water")
    assert (fixed.case_id, fixed.before, fixed.now) == ("wood/003.png", "land", "wood")


def test_drifts_appear_and_go_away(run_writer: Writer) -> None:
    moved = dict.fromkeys(("desktop:f16", "desktop:q8_0", APP_ARM, PHONE_ARM), 0.3)
    clean, broken = run_writer().write(), run_writer(apart=moved).write()
    (appeared,) = _between(broken, clean).drifts
    assert (appeared.change, appeared.blame.hop, appeared.blame.stage) == (
        "appeared",
        "conversion",
        "embed",
    )
    assert [one.change for one in _between(clean, broken).drifts] == ["went away"]
    (stayed,) = _between(broken, broken).drifts
    assert (stayed.change, stayed.cases_before) == ("stayed", 24)


def test_a_drift_of_a_hop_that_was_not_run_before_has_not_appeared(run_writer: Writer) -> None:
    short = run_writer(arms=("torch", "desktop:f16"), phones=()).write()
    longer = run_writer(arms=("torch", "desktop:f16", "desktop:q8_0"), phones=())
    longer.apart = {"desktop:q8_0": 0.3}
    (drift,) = _between(longer.write(), short).drifts
    assert (drift.change, drift.blame.hop) == ("not run before", "quantization")


def test_times_and_memory_are_compared_phone_by_phone(run_writer: Writer) -> None:
    found = _between(run_writer(milliseconds=2640.0).write(), run_writer().write())
    assert [one.phone for one in found.phones] == [REAL_PHONE, VIRTUAL_PHONE]
    for one in found.phones:
        assert one.image_median_ms is not None
        assert one.image_median_ms.change == pytest.approx(0.1)
        assert one.session_p90_ms is not None
        assert one.session_p90_ms.change == pytest.approx(0.1)
        assert one.memory_peak_kib is not None
        assert one.memory_peak_kib.change == 0.0


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("model", "Pixel 9", "phone: samsung SM-A536B arm64-v8a before, samsung Pixel 9 arm64-v8a"),
        ("android_version", "15", "Android build: 14, 34 before, 15, 34 now"),
        ("sdk", 35, "Android build: 14, 34 before, 14, 35 now"),
    ],
)
def test_times_of_another_phone_are_refused_though_answers_are_compared(
    run_writer: Writer, field: str, value: object, reason: str
) -> None:
    before = run_writer(phones=(REAL_PHONE,)).write()
    now = _edited(
        run_writer(phones=(REAL_PHONE,)).write(),
        lambda record: record["phones"][0].update({field: value}),
    )
    found = _between(now, before)
    assert found.phones == ()
    assert _refused(found).keys() == {"times"}
    assert _refused(found)["times"][0].startswith(reason)
    assert [arm.shared for arm in found.arms] == [24] * 5


def test_times_of_other_threads_are_refused(run_writer: Writer) -> None:
    def fewer(record: dict[str, Any]) -> None:
        for one in record["attestations"]:
            one["attestation"]["threads"] = 2

    run = run_writer(phones=(REAL_PHONE,))
    now = _edited(run.write(), fewer)
    found = _between(now, run_writer(phones=(REAL_PHONE,)).write())
    assert _refused(found) == {"times": ("threads: 4, vision 4 before, 2, vision 4 now",)}


def test_times_on_other_power_are_refused(run_writer: Writer) -> None:
    before = run_writer(phones=(REAL_PHONE,)).write()
    now = run_writer(phones=(REAL_PHONE,)).write()
    lines = (now / "observations.jsonl").read_text("utf-8")
    (now / "observations.jsonl").write_text(lines.replace('"usb"', '"battery"'))
    assert _refused(_between(now, before)) == {"times": ("power: usb before, battery now",)}


def test_a_virtual_phone_is_known_again_under_another_serial(run_writer: Writer) -> None:
    before = run_writer(phones=(REAL_PHONE, VIRTUAL_PHONE)).write()

    def renamed(record: dict[str, Any]) -> None:
        record["phones"][1]["serial"] = "127.0.0.1:1"
        for one in record["attestations"]:
            one["phone"] = one["phone"] and one["phone"].replace(VIRTUAL_PHONE, "127.0.0.1:1")

    now = _edited(run_writer(phones=(REAL_PHONE, VIRTUAL_PHONE)).write(), renamed)
    lines = (now / "observations.jsonl").read_text("utf-8")
    (now / "observations.jsonl").write_text(lines.replace(VIRTUAL_PHONE, "127.0.0.1:1"))
    found = _between(now, before)
    assert [(one.phone, one.phone_before) for one in found.phones] == [
        (REAL_PHONE, REAL_PHONE),
        ("127.0.0.1:1", VIRTUAL_PHONE),
    ]
    assert [hop.agreement_before for hop in found.hops] == ["24 of 24"] * 5


def test_another_contract_is_refused_and_says_where_it_differs(run_writer: Writer) -> None:
    host = {"phones": (), "arms": ("torch", "desktop:f16")}
    before = run_writer(**host).write()
    now = run_writer(**host, contract="as-shipped").write()
    found = _between(now, before)
    assert found.arms == found.hops == found.phones == ()
    assert _refused(found)["answers"] == ("contract, pixels.channels: rgb before, bgr now",)
    with pytest.raises(BadInput, match=r"cannot be compared: contract, pixels\.channels"):
        refuse_if_nothing(found)


def test_two_runs_that_are_no_releases_are_compared_under_other_contracts_too(
    run_writer: Writer,
) -> None:
    host = {"phones": (), "arms": ("torch", "desktop:f16")}
    before = run_writer(**host).write()
    now = run_writer(**host, contract="as-shipped", answers={("torch", None, 3): "land"}).write()
    found = between(summarized(now), summarized(before))
    assert found.refused == ()
    assert found.arms[0].changed > 0
    assert found.differences[0] == "contract, pixels.channels: rgb before, bgr now"


def test_times_under_another_contract_are_still_compared(run_writer: Writer) -> None:
    found = _between(run_writer(contract="as-shipped").write(), run_writer().write())
    assert len(found.phones) == 2
    assert _refused(found).keys() == {"drifts", "answers"}
    refuse_if_nothing(found)


def test_another_prompt_is_refused_arm_by_arm(run_writer: Writer) -> None:
    before = run_writer(phones=(REAL_PHONE,)).write()
    now = run_writer(phones=(REAL_PHONE,)).write()
    lines = (now / "observations.jsonl").read_text("utf-8").splitlines()
    other = [
        line.replace('"prompt_ids":[1,', '"prompt_ids":[1,7,') if PHONE_ARM in line else line
        for line in lines
    ]
    (now / "observations.jsonl").write_text("\n".join(other) + "\n")
    found = _between(now, before)
    (refusal,) = found.refused
    assert refusal.where == (f"{PHONE_ARM} on {REAL_PHONE}",)
    assert refusal.reasons == ("prompt ids: other ones in 24 of 24 shared cases",)
    assert len(found.arms) == 4


def test_runs_that_share_nothing_cannot_be_compared(run_writer: Writer) -> None:
    host = {"phones": (), "labelled": False}
    now = run_writer(**host, arms=("torch",)).write()
    before = run_writer(**host, arms=("desktop:f16",)).write()
    with pytest.raises(BadInput, match="share no hop, arm or phone"):
        refuse_if_nothing(_between(now, before))


@pytest.mark.parametrize(("contract", "shared"), [("default", 0), ("as-shipped", 24)])
def test_other_pixels_are_another_picture_unless_the_contract_made_them(
    run_writer: Writer, contract: str, shared: int
) -> None:
    host = {"phones": (), "arms": ("torch", "desktop:f16")}
    before = run_writer(**host).write()
    now = run_writer(**host, contract=contract, picture_offset=24).write()
    found = arms_between(summarized(now), summarized(before))
    assert [arm.shared for arm in found] == [shared, shared]


def test_what_else_differs_is_said(run_writer: Writer) -> None:
    def other(record: dict[str, Any]) -> None:
        record["bundle"]["sha256"] = "8a" * 32
        record["packages"]["torch"] = "2.14.0"

    now = _edited(run_writer(phones=(REAL_PHONE,)).write(), other)
    found = _between(now, run_writer(phones=(REAL_PHONE,)).write())
    assert found.differences == (
        f"bundle: {'9b' * 6} before, {'8a' * 6} now",
        "torch: 2.13.0 before, 2.14.0 now",
    )
    assert found.refused == ()


def test_the_comparison_fits_80_columns(run_writer: Writer) -> None:
    moved = dict.fromkeys(("desktop:q8_0", APP_ARM, PHONE_ARM), 0.3)
    before = run_writer(milliseconds=2000.0).write()
    now = _edited(
        run_writer(answers=WRONG, apart=moved).write(),
        lambda record: record["phones"][1].update({"model": "another"}),
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(
        terminal.between_view(between(summarized(now), summarized(before), baseline="1.4"))
    )
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    told = " ".join(text.split())
    for words in (
        f"{PHONE_ARM} on {REAL_PHONE}: 1 of 24 answers changed, against torch 1 newly flipped, "
        "0 no longer",
        "appeared: quantization, embed: ",
        f"not compared: times and memory of {PHONE_ARM} on {VIRTUAL_PHONE}: phone: driftloop",
        "+20.0 %",
        "PASS before, FAIL now (baseline 1.4)",
    ):
        assert words in told
