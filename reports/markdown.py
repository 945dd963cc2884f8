"""`report.md`: the verdict at the length of a release note."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from reports import numbers, wording
from reports.answers import shipping
from reports.charts import duration
from reports.sessions import sentence
from reports.summary import Summary
from reports.text import markdown_code, markdown_text, plain


def render(summary: Summary) -> str:
    """The whole note. Jinja2 knows no escaping for Markdown: the template names one per value."""
    environment = Environment(
        loader=PackageLoader("reports", "templates"),
        autoescape=False,  # noqa: S701 - no HTML, and escaped by the filters below
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        code=markdown_code,
        md=markdown_text,
        said=lambda text: markdown_code(plain(text), 60),
        duration=duration,
        nats=numbers.nats,
        limit=numbers.limit,
        of=numbers.of,
        bounds=numbers.bounds,
        equality=numbers.equality,
        count=wording.count,
    )
    timed = [one for one in summary.verdict.latency if one.phone is not None]
    return environment.get_template("report.md.j2").render(
        summary=summary,
        record=summary.record,
        verdict=summary.verdict,
        shipping=shipping(summary.verdict),
        sessions=sentence(summary.sessions),
        timed=timed,
    )
