"""`report.html`: one file that asks nothing of the network, escaped throughout."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.comparison import attestation
from reports import answers, breakage, numbers, pictures, stage_times, wording
from reports.case_table import DifferingCase
from reports.charts import duration
from reports.evidence.document import gather
from reports.summary import Range, Summary
from reports.text import plain, visible

MAX_PICTURES = 24
"""Cases shown with their picture; the rest are counted. Keeps the file mailable."""
MAX_ALIKE = 3
"""Of these, cases with the same words in every arm: a systematic drift has one in each case."""
MAX_SESSIONS = 12
"""Differing sessions shown in full."""
MAX_ROWS = 60
"""Other sessions, a row each."""
_OPEN = ("fail", "inconclusive")
_OUTCOME_CLASSES = {
    "pass": "PASS",
    "fail": "FAIL",
    "inconclusive": "INCONCLUSIVE",
    "infra": "INFRA",
    "not judged": "UNJUDGED",
}


def render(summary: Summary) -> str:
    """The whole page."""
    environment = Environment(
        loader=PackageLoader("reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        visible=visible,
        plain=plain,
        percent=numbers.percent,
        nats=numbers.nats,
        limit=numbers.limit,
        of=numbers.of,
        bounds=numbers.bounds,
        equality=numbers.equality,
        duration=duration,
        span=_span,
        outcome_class=lambda outcome: _OUTCOME_CLASSES[outcome.lower()],
        gate_words=wording.gate_words,
        stage_words=wording.stage_words,
        canary_words=wording.canary_words,
        count=wording.count,
    )
    shown = _shown(summary.cases)
    urls = pictures.data_urls(
        summary.folder, [case.pixels_sha256 for case in shown if case.pixels_sha256]
    )
    gates = summary.verdict.gates
    differing = [view for view in summary.sessions if view.differs]
    evidence = gather(summary)
    causes = breakage.causes(summary.verdict, summary.trend)
    return environment.get_template("report.html.j2").render(
        summary=summary,
        record=summary.record,
        verdict=summary.verdict,
        shipping=answers.shipping(summary.verdict),
        sections=_sections(summary, causes),
        causes=causes,
        evidence=evidence,
        loud_canaries=[one for one in summary.verdict.canaries if one.outcome != "pass"],
        quiet_canaries=[one for one in summary.verdict.canaries if one.outcome == "pass"],
        better_builds=attestation.better_builds(summary.record),
        cases=[(case, urls.get(case.pixels_sha256 or "")) for case in shown],
        cases_left_out=len(summary.cases) - len(shown),
        differing_sessions=differing[:MAX_SESSIONS],
        sessions_left_out=len(differing[MAX_SESSIONS:]),
        agreeing_sessions=[view for view in summary.sessions if not view.differs],
        max_rows=MAX_ROWS,
        open_gates=[gate for word in _OPEN for gate in gates if gate.outcome == word],
        quiet_gates=[gate for gate in gates if gate.outcome not in _OPEN],
        panels=stage_times.stage_panels(summary),
        session_panel=stage_times.session_panel(summary),
        stacks=stage_times.stage_stacks(summary),
        stage_names=stage_times.STAGE_NAMES,
    )


def _shown(cases: Sequence[DifferingCase]) -> list[DifferingCase]:
    """Those that are worth a picture, worst first."""
    told = [case for case in cases if not case.same_words]
    alike = [case for case in cases if case.same_words]
    return [*told, *alike[:MAX_ALIKE]][:MAX_PICTURES]


def _sections(summary: Summary, causes: Sequence[breakage.Cause]) -> set[str]:
    """The ids of those sections that answers point to and that this page has."""
    there = {"ladder", "time", "gates"}
    if causes:
        there.add("broke")
    if summary.trend.plots:
        there.add("trend")
    return there


def _span(told: Range | None, unit: str) -> str:
    return "not told" if told is None else numbers.span(told.low, told.high, unit)
