"""`junit.xml`: one test case per gate and phone, for CI servers."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from driftloop.harness.evaluation import Evaluation
from driftloop.reports.text import visible

HOST: Final = "this host"


def render(run: Evaluation) -> str:
    """The document. A gate that failed is a failure, one that could not be decided or was not
    judged is skipped with its reason, and an arm that owes observations is an error."""
    record, verdict = run.record, run.verdict
    cases = []
    for gate in verdict.gates:
        where = f"{gate.hop}: {gate.reference} -> {gate.arm}" if gate.hop else gate.arm
        case = _case(gate.phone, f"{gate.name} ({where})")
        if gate.outcome == "fail":
            SubElement(case, "failure", message=visible(gate.why), type=gate.name)
        elif gate.outcome != "pass":
            SubElement(case, "skipped", message=visible(f"{gate.outcome}: {gate.why}"))
        cases.append(case)
    for owing in verdict.undelivered:
        case = _case(owing.phone, f"observations ({owing.arm})")
        why = f"{owing.missing} of {owing.of} missing: {owing.why}"
        SubElement(case, "error", message=visible(why), type="INFRA")
        cases.append(case)
    for one in record.left_out:
        case = _case(one.phone, "phone")
        SubElement(case, "skipped", message=visible(f"INFRA: left out: {one.detail}"))
        cases.append(case)
    attributes = {
        "name": visible(f"driftloop {verdict.run_id}"),
        "timestamp": record.started_at.strftime("%Y-%m-%dT%H:%M:%S"),
        "tests": str(len(cases)),
    }
    for count, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        attributes[count] = str(sum(case.find(kind) is not None for case in cases))
    root = Element("testsuites", attributes)
    suite = SubElement(root, "testsuite", attributes)
    properties = SubElement(suite, "properties")
    facts = {
        "verdict": verdict.verdict,
        "run": record.run_id,
        "bundle": record.bundle.sha256,
        "contract": record.contract_sha256,
        "seed": str(record.seed),
    }
    for name, value in facts.items():
        SubElement(properties, "property", name=name, value=visible(value))
    suite.extend(cases)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _case(phone: str | None, name: str) -> Element:
    # CI servers cut a class name at its dots, which serials of networked phones hold.
    where = visible(phone or HOST).replace(".", "_")
    return Element("testcase", classname=f"driftloop.{where}", name=visible(name))
