"""`report.html`, one file that needs no network, and `report.md`, as long as a release note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from driftloop.harness.comparison import attestation
from driftloop.harness.judgement.gate import counted
from driftloop.harness.judgement.verdict import Word
from driftloop.reports import cases, phones, pictures, wording
from driftloop.reports.evidence import gather
from driftloop.reports.summary import Summary
from driftloop.reports.text import markdown_code, markdown_text, plain, visible

MAX_PICTURES: Final = 24
"""Cases shown with their picture; the rest are counted. Keeps the file mailable."""
MAX_ALIKE: Final = 3
"""Of these, cases with the same words in every arm: a systematic drift has one in each case."""
MAX_SESSIONS: Final = 12
"""Differing sessions shown in full."""
MAX_ROWS: Final = 60
"""Other sessions, a row each."""
_GRAVEST: Final[tuple[Word, ...]] = ("FAIL", "INFRA", "INCONCLUSIVE", "PASS")
_OPEN: Final = ("fail", "inconclusive")


def html(summary: Summary) -> str:
    """The whole page, escaped throughout."""
    run = summary.evaluation
    verdict = run.verdict
    evidence = gather(run, summary.observations)
    worded = [case for case in summary.cases if not case.same_words]
    alike = [case for case in summary.cases if case.same_words]
    shown = [*worded, *alike[:MAX_ALIKE]][:MAX_PICTURES]
    urls = pictures.data_urls(
        run.folder,
        [
            *(one.case.pixels_sha256 for one in shown),
            *(one.pixels_sha256 for _, pair in evidence.pixels for one in pair),
        ],
    )
    differing = [view for view in summary.sessions if view.differs]
    sections = {"ladder", "time", "gates"}
    sections |= {"broke"} if summary.causes else set()
    sections |= {"trend"} if summary.trend.plots else set()
    return _rendered(
        "report.html.j2",
        summary,
        escaped=True,
        sections=sections,
        phones=phones.rows([run]),
        questions=list(phones.QUESTIONS),
        evidence=evidence,
        pixel_pairs=[pictures.pixel_pair(hop, *pair, urls) for hop, pair in evidence.pixels],
        loud_canaries=[one for one in verdict.canaries if one.outcome != "pass"],
        quiet_canaries=[one for one in verdict.canaries if one.outcome == "pass"],
        better_builds=attestation.better_builds(run.record),
        cases=[(one, urls.get(one.case.pixels_sha256 or "")) for one in shown],
        cases_left_out=len(summary.cases) - len(shown),
        differing_sessions=differing[:MAX_SESSIONS],
        sessions_left_out=len(differing[MAX_SESSIONS:]),
        agreeing_sessions=[view for view in summary.sessions if not view.differs],
        max_rows=MAX_ROWS,
        open_gates=[gate for word in _OPEN for gate in verdict.gates if gate.outcome == word],
        quiet_gates=[gate for gate in verdict.gates if gate.outcome not in _OPEN],
    )


def markdown(summary: Summary) -> str:
    """The whole note. Jinja2 has no escaping for Markdown: the template names one per value."""
    return _rendered(
        "report.md.j2",
        summary,
        escaped=False,
        sessions=cases.sentence(summary.sessions),
        timed=[one for one in summary.evaluation.verdict.latency if one.phone is not None],
    )


def release(summaries: Sequence[Summary], links: Mapping[Path, str]) -> tuple[str, str]:
    """The page and the note of several runs. `links`: a run's folder -> the address of its page."""
    rows = phones.rows(one.evaluation for one in summaries)
    words = [one.evaluation.verdict.verdict for one in summaries]
    values = {
        "runs": summaries,
        "rows": rows,
        "phones": [row for row in rows if row.name != phones.HOST],
        "questions": list(phones.QUESTIONS),
        "word": next(word for word in _GRAVEST if word in words),
        "links": links,
    }
    page, note = (
        _environment(escaped).get_template(f"release.{kind}.j2").render(values)
        for escaped, kind in ((True, "html"), (False, "md"))
    )
    return page, note


def _rendered(template: str, summary: Summary, *, escaped: bool, **values: object) -> str:
    run = summary.evaluation
    return (
        _environment(escaped)
        .get_template(template)
        .render(summary=summary, run=run, record=run.record, verdict=run.verdict, **values)
    )


def _environment(escaped: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("driftloop.reports", "templates"),
        autoescape=escaped,  # noqa: S701 - Markdown is no HTML, and escaped by its own filters
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        visible=visible,
        plain=plain,
        code=markdown_code,
        md=markdown_text,
        said=lambda text: markdown_code(plain(text), 60),
        count=counted,
        outcome_class=lambda outcome: outcome.replace("not judged", "unjudged").upper(),
        gate_words=wording.GATE_WORDS.__getitem__,
        canary_words=wording.CANARY_WORDS.__getitem__,
    )
    for name in ("percent", "nats", "limit", "of", "bounds", "equality", "latency_cells"):
        environment.filters[name] = getattr(wording, name)
    return environment
