"""report.html, report.md, junit.xml and the terminal's table, written from run folders."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from devices.runner.protocol import RunnerFault
from harness import fortune
from harness.judgement.verdict import Verdict
from harness.records.record import ArmFailure, RefusedRecord
from harness.releases.history import History
from reports import html, summary, terminal
from reports.between import between
from reports.terminal import past
from tests.unit.reports.run_reports import rebuilt, summarized

if TYPE_CHECKING:
    from tests.unit.reports.conftest import RunWriter

Writer = Callable[..., "RunWriter"]
REAL_PHONE, VIRTUAL_PHONE = "R5CT10ABCDE", "127.0.0.1:5581"
PHONE_ARM = "phone:q8_0+app"
MOVED = dict.fromkeys(("desktop:q8_0", "desktop:q8_0+app", PHONE_ARM), 0.3)
NASTY = "<script>alert(1)</script> | `x` **b** \x00\x0b\u202e ]]> --> \"'\n# no heading"


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


def _nasty(run_writer: Writer, text: str = NASTY) -> Path:
    written: Path = run_writer(
        case_ids={4: text or "x", 20: f"{text}2"},
        texts={(PHONE_ARM, VIRTUAL_PHONE, 9): text},
        answers={(PHONE_ARM, REAL_PHONE, case): "fire" for case in (4, 5, 8)},
        faults={(PHONE_ARM, VIRTUAL_PHONE, 20): RunnerFault(kind="decode", detail=text)},
        refused=(RefusedRecord(path=text, kind="truncated", detail=text),),
    ).write()
    return written


def test_every_report_is_rebuilt_from_the_folder_alone(run_writer: Writer) -> None:
    folder = run_writer().write()
    first = {path.name: path.read_bytes() for path in rebuilt(folder)}
    assert sorted(first) == [
        "junit.xml",
        "report.html",
        "report.md",
        "sessions.jsonl",
        "verdict.json",
    ]
    for name in first:
        (folder / name).unlink()
    assert {path.name: path.read_bytes() for path in rebuilt(folder)} == first
    Verdict.model_validate_json(first["verdict.json"])


def test_the_page_asks_nothing_of_the_network(run_writer: Writer) -> None:
    folder = _nasty(run_writer)
    rebuilt(folder)
    text = (folder / "report.html").read_text("utf-8")
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
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_shows_differing_cases_as_the_models_saw_them(run_writer: Writer) -> None:
    folder = run_writer(answers={(PHONE_ARM, REAL_PHONE, 7): "water"}).write()
    rebuilt(folder)
    images = _Page((folder / "report.html").read_text("utf-8")).all("img")
    assert [image["alt"] for image in images] == ["What the models saw of fire/007.png"]
    content = base64.b64decode(str(images[0]["src"]).split(",")[1])
    shown = Image.open(io.BytesIO(content))
    assert shown.tobytes() == Image.open(folder / "pixels" / "007.png").tobytes()


def test_the_page_shows_the_words_of_every_arm_and_what_they_foretell(run_writer: Writer) -> None:
    folder = run_writer(cases=26, answers={(PHONE_ARM, REAL_PHONE, 7): "water"}).write()
    rebuilt(folder)
    page = " ".join((folder / "report.html").read_text("utf-8").split())
    changed = re.findall(r'<span class="changed">(\w+)</span><span class="small number">', page)
    assert changed == ["water"]
    for words in (["land", "fire", "wood"], ["land", "water", "wood"]):
        assert f"<strong>{', '.join(words)}.</strong> {fortune.read(words).text}" in page
    assert "8 sessions in which every arm that ran says the same words" in page
    assert "only 2 of 3 photos" in page
    note = (folder / "report.md").read_text("utf-8")
    assert "Sessions: every arm says the same words in 8 of 9, not in session 3 (" in note


def test_many_sessions_are_counted_rather_than_shown(run_writer: Writer) -> None:
    firsts = range(0, 45, 3)
    wrong = {(PHONE_ARM, REAL_PHONE, case): "wood" if case % 5 == 4 else "metal" for case in firsts}
    folder = run_writer(cases=240, phones=(REAL_PHONE,), pictures=False, answers=wrong).write()
    rebuilt(folder)
    page = (folder / "report.html").read_text("utf-8")
    assert page.count('<div class="session">') == html.MAX_SESSIONS == 12
    assert "3 sessions more differ; <code>sessions.jsonl</code> holds them all" in page
    assert "5 sessions more in <code>sessions.jsonl</code>" in page


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\nrubbish"])
def test_a_lost_or_damaged_picture_is_named_and_stops_nothing(
    run_writer: Writer, content: bytes
) -> None:
    folder = run_writer(answers={(PHONE_ARM, REAL_PHONE, 7): "water"}).write()
    (folder / "pixels" / "007.png").write_bytes(content)
    rebuilt(folder)
    text = (folder / "report.html").read_text("utf-8")
    assert "The run folder holds no picture of this case." in text
    assert not _Page(text).all("img")


def test_status_is_a_word_wherever_it_is_a_shape(run_writer: Writer) -> None:
    folder = run_writer(answers={(PHONE_ARM, REAL_PHONE, 7): "water"}).write()
    rebuilt(folder)
    text = (folder / "report.html").read_text("utf-8")
    shapes = re.findall(r'class="status \w+"><svg[^>]*><use[^>]*></svg>(\w[\w ]*)</span>', text)
    assert {"fail", "pass", "not judged"} <= set(shapes)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_no_text_breaks_a_report(run_writer: Writer, text: str) -> None:
    folder = _nasty(run_writer, text)
    rebuilt(folder)
    assert len(_Page((folder / "report.html").read_text("utf-8")).all("article")) == 5
    ElementTree.parse(folder / "junit.xml")  # noqa: S314
    rows = [
        line
        for line in (folder / "report.md").read_text("utf-8").split("\n")
        if line.startswith("|")
    ]
    assert all(row.endswith("|") for row in rows)


def test_nothing_untrusted_is_taken_for_markup(run_writer: Writer) -> None:
    folder = _nasty(run_writer)
    rebuilt(folder)
    page = (folder / "report.html").read_text("utf-8")
    note = (folder / "report.md").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<script" not in note
    assert "\u202e" not in page + note
    assert "\n# no heading" not in note


def test_junit_has_one_case_per_gate_and_phone(run_writer: Writer) -> None:
    gone = ArmFailure(arm=PHONE_ARM, phone=REAL_PHONE, kind="PhoneOffline", detail="offline\x01")
    folder = run_writer(
        absent={(PHONE_ARM, REAL_PHONE)},
        failures=(gone,),
        answers={(PHONE_ARM, VIRTUAL_PHONE, 7): "water"},
    ).write()
    rebuilt(folder)
    suite = ElementTree.parse(folder / "junit.xml").getroot()[0]  # noqa: S314
    verdict = summarized(folder).verdict
    cases = suite.findall("testcase")
    assert len(cases) == len(verdict.gates) + 1 == int(suite.get("tests", ""))
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases)
    assert {case.get("classname") for case in cases} == {
        "driftloop.this host",
        f"driftloop.{REAL_PHONE}",
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


def test_the_note_fits_a_release(run_writer: Writer) -> None:
    many = {(PHONE_ARM, REAL_PHONE, index): "water" for index in range(24)}
    folder = run_writer(answers=many).write()
    rebuilt(folder)
    note = (folder / "report.md").read_text("utf-8")
    assert note.startswith("## driftloop: FAIL\n")
    assert "more in the full report" in note
    assert len(note) < 6000


def test_where_other_types_had_to_be_taken_stands_in_the_report(run_writer: Writer) -> None:
    fell = "text q8_0: 3 of 9 matrices became f16, as rows of 40 are no multiple of 32: 9.9 bits"
    folder = run_writer(fallbacks={"q8_0": (fell,), "q4_0": ("of no arm",)}).write()
    rebuilt(folder)
    for name in ("report.md", "report.html"):
        written = unescape((folder / name).read_text("utf-8")).replace("\\", "")
        assert fell in written
        assert "of no arm" not in written


def test_the_terminal_needs_no_more_than_80_columns(run_writer: Writer) -> None:
    folder = _nasty(run_writer)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal.summary_view(summarized(folder)))
    lines = console.export_text().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert lines[-1].startswith("FAIL The phone no longer says")
    words = " ".join(lines)
    for name in ("conversion", "quantization", "runtime", "platform", "6 of 8", "desktop:q8_0+app"):
        assert name in words


def test_the_first_screen_answers_in_the_order_of_the_questions(run_writer: Writer) -> None:
    folder = run_writer(phones=(REAL_PHONE,), apart=MOVED).write()
    rebuilt(folder)
    page = (folder / "report.html").read_text("utf-8")
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
    assert summarized(folder).verdict.blames[0].sentence in unescape(head).replace("\xa0", " ")


def test_every_link_leads_to_a_place_on_the_page(run_writer: Writer) -> None:
    for fields in ({}, {"apart": MOVED}, {"phones": (), "arms": ("torch",)}):
        folder = run_writer(**fields).write()
        rebuilt(folder)
        page = _Page((folder / "report.html").read_text("utf-8"))
        links = [str(one["href"]) for one in page.all("a")]
        ids = [one["id"] for _, one in page.elements if "id" in one]
        assert len(ids) == len(set(ids))
        assert links or fields.get("arms")
        assert {link.removeprefix("#") for link in links} <= set(ids)


def test_a_canary_that_fails_stands_on_every_report(run_writer: Writer) -> None:
    folder = run_writer(phones=(REAL_PHONE,), leaking={(PHONE_ARM, REAL_PHONE)}).write()
    rebuilt(folder)
    loaded = summarized(folder)
    assert loaded.headline == "The answers agree, but a canary does not."
    (failed, *_) = [one for one in loaded.verdict.canaries if one.outcome == "fail"]
    assert "state leaks between images" in failed.why
    page = " ".join((folder / "report.html").read_text("utf-8").split())
    assert "the first image again, as the last" in page
    for text in (page, (folder / "report.md").read_text("utf-8"), _terminal(loaded)):
        assert "state leaks between images" in text
    assert "state leaks between images" in (folder / "junit.xml").read_text("utf-8")


def test_a_drift_of_every_case_is_shown_on_a_few(run_writer: Writer) -> None:
    folder = run_writer(
        phones=(REAL_PHONE,), apart=MOVED, answers={(PHONE_ARM, REAL_PHONE, 7): "water"}
    ).write()
    rebuilt(folder)
    page = (folder / "report.html").read_text("utf-8")
    assert page.count('<article class="case">') == 1 + html.MAX_ALIKE
    assert f"{23 - html.MAX_ALIKE} cases more differ" in page


def test_what_ran_otherwise_than_asked_stands_with_who_answered(run_writer: Writer) -> None:
    folder = run_writer(phones=(REAL_PHONE,)).write()
    asked = "Build, backend, threads, files and settings: what ran is what was asked for."
    rebuilt(folder)
    assert asked in (folder / "report.html").read_text("utf-8")
    record = (folder / "run.json").read_text("utf-8")
    (folder / "run.json").write_text(record.replace('"arm64-dotprod"', '"x86_64"'))
    rebuilt(folder)
    page = (folder / "report.html").read_text("utf-8")
    assert asked not in page
    assert '<td data-label="Ran" class="changed"><code><bdi>x86_64</bdi></code></td>' in page
    assert summarized(folder).headline == "What ran is not what was asked for."


def test_the_terminal_names_stage_layer_and_sentence(run_writer: Writer) -> None:
    loaded = summarized(run_writer(phones=(REAL_PHONE,), apart=MOVED).write())
    (blame,) = loaded.verdict.blames
    told = _terminal(loaded)
    assert told.count(blame.sentence) == 1
    assert f"- {blame.hop}: {blame.sentence}" in told
    assert told.endswith("FAIL The answers hold, but a step on the way changed more than it may.")


def _terminal(loaded: summary.Summary) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal.summary_view(loaded))
    return " ".join(console.export_text().split())


def test_a_history_needs_no_more_than_80_columns(run_writer: Writer, tmp_path: Path) -> None:
    for number, fields in enumerate(({}, {"apart": MOVED}, {"answers": {}, "noise": {}})):
        run = run_writer(run_id=f"run-{number}", days=number, pictures=False, **fields).write()
        rebuilt(run)
    with History(tmp_path) as history:
        rows, told = history.hops(), history.query("SELECT * FROM blames")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(past.history_view(rows))
    console.print(past.answer_view(told))
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    for words in ("run1", "2026-11-23", "PASS", "FAIL", "platform", "embed", "24 of"):
        assert words in text


def test_the_terminal_shows_what_changed_since_an_earlier_run(run_writer: Writer) -> None:
    before = summarized(run_writer().write())
    now = summarized(run_writer(answers={(PHONE_ARM, REAL_PHONE, 7): "water"}).write())
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal.between_view(between(now, before)))
    text = console.export_text()
    assert f"{PHONE_ARM} on {REAL_PHONE}: 1 of 24 answers changed" in text
    assert "PASS before, FAIL now" in text
