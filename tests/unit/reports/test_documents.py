"""report.html, report.md and junit.xml, written from run folders; the commands that do it."""

from __future__ import annotations

import base64
import io
import re
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from driftloop.cli.app import app
from driftloop.harness import fortune
from driftloop.harness.judgement.verdict import Verdict
from driftloop.harness.records.record import ArmFailure, LeftOutPhone
from driftloop.reports import pages, terminal
from tests.evaluation_work import counted
from tests.unit.reports import runs
from tests.unit.reports.runs import Writer


class _Page(HTMLParser):
    """Elements and their attributes; complains about elements closed out of order."""

    _VOID = frozenset({"meta", "img", "br", "circle", "line", "rect", "path", "use"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._VOID:
            assert self._open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_every_report_is_rebuilt_from_the_folder_alone(run_writer: Writer) -> None:
    folder = run_writer().write()
    first = {path.name: path.read_bytes() for path in runs.rebuilt(folder)}
    assert sorted(first) == [
        "junit.xml", "report.html", "report.md", "sessions.jsonl", "verdict.json",
    ]  # fmt: skip
    for name in first:
        (folder / name).unlink()
    assert {path.name: path.read_bytes() for path in runs.rebuilt(folder)} == first
    Verdict.model_validate_json(first["verdict.json"])


def test_untrusted_text_is_no_markup_and_the_page_asks_nothing_of_the_network(
    nasty: Writer,
) -> None:
    writer = nasty()
    text, note = writer.page(), (writer.path / "report.md").read_text("utf-8")
    page = _Page(text)
    assert not page.all("script")
    assert not page.all("link")
    urls = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "data", "poster")
    ]
    assert urls
    assert all(url and url.startswith(("data:image/png;base64,", "#")) for url in urls)
    for words in ("url(", "@import", "<script", "\u202e"):
        assert words not in text
    assert "&lt;script&gt;" in text
    for words in ("<script", "\u202e", "\n# no heading"):
        assert words not in note


def test_the_page_shows_differing_cases_as_the_models_saw_them(run_writer: Writer) -> None:
    writer = run_writer(phones=runs.BOTH, answers=runs.FLIP)
    text = writer.page()
    (image,) = _Page(text).all("img")
    assert image["alt"] == "What the models saw of fire/007.png"
    shown = Image.open(io.BytesIO(base64.b64decode(str(image["src"]).split(",")[1])))
    assert shown.tobytes() == Image.open(writer.path / "pixels" / "007.png").tobytes()
    # A status is a word wherever it is a shape.
    shapes = re.findall(r'class="status \w+"><svg[^>]*><use[^>]*></svg>(\w[\w ]*)</span>', text)
    assert {"fail", "pass", "not judged"} <= set(shapes)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\nrubbish"])
def test_a_lost_or_damaged_picture_is_named_and_stops_nothing(
    run_writer: Writer, content: bytes
) -> None:
    folder = run_writer(answers=runs.FLIP).write()
    (folder / "pixels" / "007.png").write_bytes(content)
    runs.rebuilt(folder)
    text = (folder / "report.html").read_text("utf-8")
    assert "The run folder holds no picture of this case." in text
    assert not _Page(text).all("img")


def test_the_page_shows_the_words_of_every_arm_and_what_they_foretell(run_writer: Writer) -> None:
    writer = run_writer(cases=26, answers=runs.FLIP)
    page = " ".join(writer.page().split())
    changed = re.findall(r'<span class="changed">(\w+)</span><span class="small number">', page)
    assert changed == ["water"]
    for words in (["land", "fire", "wood"], ["land", "water", "wood"]):
        assert f"<strong>{', '.join(words)}.</strong> {fortune.read(words).text}" in page
    assert "8 sessions in which every arm that ran says the same words" in page
    assert "only 2 of 3 photos" in page
    note = (writer.path / "report.md").read_text("utf-8")
    assert "Sessions: every arm says the same words in 8 of 9, not in session 3 (" in note


def test_many_sessions_are_counted_rather_than_shown(run_writer: Writer) -> None:
    firsts = range(0, 45, 3)
    wrong = {(*runs.PHONE, case): "wood" if case % 5 == 4 else "metal" for case in firsts}
    page = run_writer(cases=240, pictures=False, answers=wrong).page()
    assert page.count('<div class="session">') == pages.MAX_SESSIONS == 12
    assert "3 sessions more differ; <code>sessions.jsonl</code> holds them all" in page
    assert "5 sessions more in <code>sessions.jsonl</code>" in page


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_no_text_breaks_a_report(nasty: Writer, text: str) -> None:
    writer = nasty(text)
    assert len(_Page(writer.page()).all("article")) == 5
    ElementTree.parse(writer.path / "junit.xml")  # noqa: S314
    note = (writer.path / "report.md").read_text("utf-8")
    assert all(line.endswith("|") for line in note.split("\n") if line.startswith("|"))


def test_junit_has_one_case_per_gate_and_phone(run_writer: Writer) -> None:
    gone = ArmFailure(
        arm=runs.PHONE_ARM, phone=runs.REAL_PHONE, kind="PhoneOffline", detail="offline\x01"
    )
    answers = {(*runs.VIRTUAL, 7): "water"}
    folder = run_writer(
        phones=runs.BOTH, absent={runs.PHONE}, failures=(gone,), answers=answers
    ).write()
    runs.rebuilt(folder)
    suite = ElementTree.parse(folder / "junit.xml").getroot()[0]  # noqa: S314
    verdict = runs.summarized(folder).evaluation.verdict
    cases = suite.findall("testcase")
    assert len(cases) == len(verdict.gates) + 1 == int(suite.get("tests", ""))
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases)
    assert {case.get("classname") for case in cases} == {
        "driftloop.this host",
        f"driftloop.{runs.REAL_PHONE}",
        "driftloop.127_0_0_1:5581",
    }
    errors = suite.findall("testcase/error")
    assert [error.get("message") for error in errors] == ["22 of 22 missing: offline⟨U+0001⟩"]
    failed = [gate for gate in verdict.gates if gate.outcome == "fail"]
    assert failed
    assert len(suite.findall("testcase/failure")) == len(failed)
    skipped = [str(item.get("message")) for item in suite.findall("testcase/skipped")]
    assert any(message.startswith("not judged: ") for message in skipped)
    assert any(message.startswith("inconclusive: ") for message in skipped)


def test_a_phone_that_was_left_out_is_in_every_report_and_fails_nothing(
    run_writer: Writer,
) -> None:
    missed = LeftOutPhone(phone="R3", kind="PhoneOffline", detail="R3: the phone is offline")
    writer = run_writer(left_out=(missed,))
    writer.page()
    for name in ("report.html", "report.md", "junit.xml", "verdict.json"):
        assert "left out: R3: the phone is offline" in (writer.path / name).read_text("utf-8")
    suite = ElementTree.parse(writer.path / "junit.xml").getroot()[0]  # noqa: S314
    assert (suite.get("errors"), suite.get("failures")) == ("0", "0")
    assert "left out: R3" in runs.shown(terminal.summary_view(runs.summarized(writer.path)))


def test_the_note_fits_a_release(run_writer: Writer) -> None:
    folder = run_writer(answers={(*runs.PHONE, index): "water" for index in range(24)}).write()
    runs.rebuilt(folder)
    note = (folder / "report.md").read_text("utf-8")
    assert note.startswith("## driftloop: FAIL\n")
    assert "more in the full report" in note
    assert len(note) < 6000


def test_where_other_types_had_to_be_taken_is_in_the_reports(run_writer: Writer) -> None:
    fell = "text q8_0: 3 of 9 matrices became f16, as rows of 40 are no multiple of 32: 9.9 bits"
    writer = run_writer(fallbacks={"q8_0": (fell,), "q4_0": ("of no arm",)})
    for written in (writer.page(), (writer.path / "report.md").read_text("utf-8")):
        assert fell in unescape(written).replace("\\", "")
        assert "of no arm" not in written


def test_the_first_screen_answers_in_the_order_of_the_questions(run_writer: Writer) -> None:
    writer = run_writer(apart=runs.MOVED)
    page = writer.page()
    head = page[page.index("<header>") : page.index("</header>")]
    places = [
        head.index(words)
        for words in (
            '<span class="word FAIL">FAIL</span>',
            "Do not ship it.",
            "Does the phone still say what the checkpoint says?",
            "Which step changed it?",
            "Since when?",
            "On which phones?",
            "Is it still fast enough?",
        )
    ]
    assert places == sorted(places)
    (blame,) = runs.summarized(writer.path).evaluation.verdict.blames
    assert blame.sentence in unescape(head).replace("\xa0", " ")


@pytest.mark.parametrize("fields", [{}, {"apart": runs.MOVED}, {"phones": (), "arms": ("torch",)}])
def test_every_link_leads_to_a_place_on_the_page(
    run_writer: Writer, fields: dict[str, object]
) -> None:
    page = _Page(run_writer(**fields).page())
    links = [str(one["href"]) for one in page.all("a")]
    ids = [one["id"] for _, one in page.elements if "id" in one]
    assert len(ids) == len(set(ids))
    assert links or fields.get("arms")
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_a_canary_that_fails_is_in_every_report(run_writer: Writer) -> None:
    writer = run_writer(leaking={runs.PHONE})
    page = " ".join(writer.page().split())
    loaded = runs.summarized(writer.path)
    assert loaded.headline == "The answers agree, but a canary does not."
    (failed, *_) = [one for one in loaded.evaluation.verdict.canaries if one.outcome == "fail"]
    assert "the first image again, as the last" in page
    files = [(writer.path / name).read_text("utf-8") for name in ("report.md", "junit.xml")]
    for text in (failed.why, page, *files, runs.shown(terminal.summary_view(loaded))):
        assert "state leaks between images" in text


def test_throttled_times_are_drawn_but_not_counted(run_writer: Writer) -> None:
    page = run_writer(throttled={21, 22}).page()
    # Both in four charts of stages, their session once, and the legend.
    assert page.count('class="throttled"') == 2 * 4 + 1 + 1
    assert "2 throttled" in page


def test_a_drift_of_every_case_is_shown_on_a_few(run_writer: Writer) -> None:
    page = run_writer(apart=runs.MOVED, answers=runs.FLIP).page()
    assert page.count('<article class="case">') == 1 + pages.MAX_ALIKE
    assert f"{23 - pages.MAX_ALIKE} cases more differ" in page


def test_what_ran_otherwise_than_asked_is_beside_who_answered(run_writer: Writer) -> None:
    writer = run_writer()
    asked = "Build, backend, threads, files and settings: everything ran as requested."
    assert asked in writer.page()
    folder = writer.path
    record = (folder / "run.json").read_text("utf-8")
    (folder / "run.json").write_text(record.replace('"arm64-dotprod"', '"x86_64"'))
    runs.rebuilt(folder)
    page = (folder / "report.html").read_text("utf-8")
    assert asked not in page
    assert '<td data-label="Ran"><code><bdi>x86_64</bdi></code></td>' in page
    assert runs.summarized(folder).headline == "What ran is not what was requested."


@pytest.mark.parametrize(("command", "folders"), [("report", 1), ("compare", 1), ("compare", 2)])
def test_every_run_is_read_compared_and_judged_once(
    command: str, folders: int, run_writer: Writer
) -> None:
    written = [run_writer().write() for _ in range(folders)]
    seen = [(folder / "observations.jsonl").read_text("utf-8") for folder in written]
    with counted() as work:
        result = CliRunner().invoke(app, [command, *map(str, written)])
    assert result.exit_code == 0, result.output
    assert work() == ("".join(seen).count("\n"), folders, folders)
