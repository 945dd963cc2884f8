"""Untrusted text comes out visible, on one line and harmless; durations have three digits."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from driftloop.reports.text import markdown_code, markdown_text, plain, visible
from driftloop.reports.wording import duration

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
NASTY = st.text("|`*_<>&[]()!\\~@#:/\"' \n\t\x00\u202ewabc1.", max_size=40)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def _rendered(markdown: str) -> _Text:
    reader = _Text()
    reader.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))
    return reader


@given(ANY_TEXT | NASTY)
def test_visible_text_is_one_printable_line(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert "\n" not in shown
    shown.encode("utf-8")


@given(ANY_TEXT | NASTY)
def test_visible_text_survives_xml(text: str) -> None:
    element = ElementTree.Element("skipped", message=visible(text))
    again = ElementTree.fromstring(ElementTree.tostring(element, encoding="unicode"))  # noqa: S314
    assert again.get("message") == visible(text)


@given(ANY_TEXT | NASTY)
def test_markdown_code_in_a_table_cell_reads_as_it_was(text: str) -> None:
    page = _rendered(f"| a | b |\n| --- | --- |\n| {markdown_code(text)} | end |\n")
    assert page.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "code", "td"]
    cells = page.text.split("\n")
    assert visible(text) in "".join(cells)


@given(ANY_TEXT | NASTY)
def test_markdown_text_opens_no_element(text: str) -> None:
    page = _rendered(f"- said: {markdown_text(text)}.\n")
    assert page.tags in (["ul", "li"], ["ul", "li", "p"])
    assert "".join(page.text.split()) == "".join(f"said:{visible(text)}.".split())


@pytest.mark.parametrize("name", ["phone:q8_0+app", "127.0.0.1:5581", "fire/img-003.png"])
def test_names_stay_readable_in_the_source_of_a_note(name: str) -> None:
    assert markdown_code(name) == f"<code>{name}</code>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", "a⏎b"), ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"), ("\ud800", "⟨U+D800⟩"), ("水", "水")],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_limit_cuts_and_says_so() -> None:
    assert visible("abcdef", 4) == "abc…"


def test_nothing_at_all_is_named() -> None:
    assert (plain(None), plain("  "), plain("fire")) == ("none", "(empty)", "fire")


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [(0, "0"), (0.01234, "0.0123 ms"), (999.96, "1000 ms"), (1234, "1.23 s"), (123_456, "123 s")],
)
def test_durations_have_three_digits(milliseconds: float, said: str) -> None:
    assert duration(milliseconds) == said
