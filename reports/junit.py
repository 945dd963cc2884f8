"""`junit.xml`: one test case per gate and phone, for CI servers."""

from __future__ import annotations

from xml.etree import ElementTree

from harness.judgement.gate import GateResult
from harness.judgement.sampling import Undelivered
from reports.summary import Summary
from reports.text import visible

HOST = "this host"


def render(summary: Summary) -> str:
    """The document. A gate that failed is a failure, one that could not be decided or was not
    judged is skipped with its reason, and an arm that owes observations is an error."""
    verdict = summary.verdict
    cases = [_gate_case(gate) for gate in verdict.gates]
    cases += [_undelivered_case(owing) for owing in verdict.undelivered]
    suite = ElementTree.Element(
        "testsuite",
        name=visible(f"driftloop {verdict.run_id}"),
        timestamp=summary.record.started_at.strftime("%Y-%m-%dT%H:%M:%S"),
        tests=str(len(cases)),
        failures=_number(cases, "failure"),
        errors=_number(cases, "error"),
        skipped=_number(cases, "skipped"),
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _facts(summary).items():
        ElementTree.SubElement(properties, "property", name=name, value=visible(value))
    suite.extend(cases)
    root = ElementTree.Element("testsuites", dict(suite.attrib))
    root.append(suite)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _facts(summary: Summary) -> dict[str, str]:
    record = summary.record
    return {
        "verdict": summary.verdict.verdict,
        "run": record.run_id,
        "bundle": record.bundle.sha256,
        "contract": record.contract_sha256,
        "seed": str(record.seed),
    }


def _gate_case(gate: GateResult) -> ElementTree.Element:
    where = f"{gate.hop}: {gate.reference} -> {gate.arm}" if gate.hop else gate.arm
    case = _case(gate.phone, f"{gate.name} ({where})")
    if gate.outcome == "fail":
        _add(case, "failure", gate.why, gate.name)
    elif gate.outcome != "pass":
        _add(case, "skipped", f"{gate.outcome}: {gate.why}")
    return case


def _undelivered_case(owing: Undelivered) -> ElementTree.Element:
    case = _case(owing.phone, f"observations ({owing.arm})")
    _add(case, "error", f"{owing.missing} of {owing.of} missing: {owing.why}", "INFRA")
    return case


def _case(phone: str | None, name: str) -> ElementTree.Element:
    # CI servers cut a class name at its dots, which serials of networked phones hold.
    where = visible(phone or HOST).replace(".", "_")
    return ElementTree.Element("testcase", classname=f"driftloop.{where}", name=visible(name))


def _add(case: ElementTree.Element, kind: str, message: str, category: str | None = None) -> None:
    element = ElementTree.SubElement(case, kind, message=visible(message))
    if category is not None:
        element.set("type", category)


def _number(cases: list[ElementTree.Element], kind: str) -> str:
    return str(sum(case.find(kind) is not None for case in cases))
