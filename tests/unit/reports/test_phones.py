"""A release's phones in one table, of one run or of several."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from driftloop.cli.app import app
from driftloop.harness.records.record import ArmFailure, LeftOutPhone
from driftloop.reports import phones
from tests.unit.reports import runs
from tests.unit.reports.runs import Writer

OUT_OF_REACH = LeftOutPhone(phone="R3", kind="PhoneOffline", detail="R3: the phone is offline")
GONE = ArmFailure(
    arm=runs.PHONE_ARM, phone=runs.VIRTUAL_PHONE, kind="PhoneOffline", detail="it did not come back"
)


def test_every_phone_has_a_row_and_the_failing_come_first(run_writer: Writer) -> None:
    writer = run_writer(phones=runs.BOTH, answers=runs.FLIP, left_out=(OUT_OF_REACH,))
    rows = phones.rows([writer.summary().evaluation])
    assert [row.name for row in rows] == ["Pixel", "R3", "this host", "Pixel"]
    answers = dict(zip(phones.QUESTIONS, rows[0].cells, strict=True))
    assert (answers["answers"].outcome, answers["memory"].outcome) == ("fail", "pass")
    assert "in 1 of 24 cases" in answers["answers"].why
    assert rows[1].cells[0] == phones.Cell("INFRA", "left out: R3: the phone is offline")
    assert runs.REAL_PHONE in rows[0].detail
    assert "virtual" in rows[3].detail


def test_a_phone_that_owes_observations_is_no_verdict_on_the_model(run_writer: Writer) -> None:
    run = run_writer(phones=runs.BOTH, absent={runs.VIRTUAL}, failures=(GONE,)).summary().evaluation
    (row,) = (row for row in phones.rows([run]) if runs.VIRTUAL_PHONE in row.detail)
    assert {cell.outcome for cell in row.cells} == {"INFRA"}
    assert "it did not come back" in row.cells[0].why


def test_a_run_of_several_phones_shows_them_on_its_first_screen(run_writer: Writer) -> None:
    table = "Every phone, the failing first"
    assert table in run_writer(phones=runs.BOTH).page().partition("</header>")[0]
    assert table not in run_writer().page()


def test_several_runs_become_one_page_with_links_to_their_own(
    run_writer: Writer, tmp_path: Path
) -> None:
    folders = [str(run_writer().write()), str(run_writer(answers=runs.FLIP).write())]
    done = CliRunner().invoke(app, ["report", *folders, "--out", str(tmp_path / "release")])
    assert done.exit_code == 0, done.stderr
    page = (tmp_path / "release" / "release.html").read_text("utf-8")
    assert '<span class="word FAIL">FAIL</span>' in page
    for folder in folders:
        assert f'href="../{Path(folder).name}/report.html"' in page
    note = (tmp_path / "release" / "release.md").read_text("utf-8")
    assert note.startswith("## driftloop: FAIL\n")
    assert note.count("| Pixel (") == 2
    refused = CliRunner().invoke(app, ["report", *folders])
    assert "several runs have one page" in str(refused.exception)


def test_hostile_text_is_no_markup_on_the_page_of_a_release(nasty: Writer, tmp_path: Path) -> None:
    folders = [str(nasty().write()), str(nasty().write())]
    CliRunner().invoke(app, ["report", *folders, "--out", str(tmp_path / "release")])
    assert "<script>" not in (tmp_path / "release" / "release.html").read_text("utf-8")
