"""The verdict for a build server: JUnit's XML, one test case per rule."""

import re
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from hostd.proving.findings import Finding, Result, Verdict

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd]")
"""Characters that XML 1.0 cannot hold, not even escaped; what a service prints may."""


def write(verdict: Verdict, path: Path) -> None:
    """Raises OSError."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"hostd-agent test {verdict.agent}",
        tests=str(len(verdict.findings)),
        failures=str(len(verdict.of(Result.FAILED))),
        skipped=str(len(verdict.of(Result.SKIPPED))),
        errors="0",
        time=f"{verdict.took_ms / 1000:.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("seed", str(verdict.seed)), ("path", verdict.path), ("verdict", verdict.word)):
        ElementTree.SubElement(properties, "property", name=name, value=_fit(value))
    for finding in verdict.findings:
        suite.append(_case(verdict, finding))
    top = ElementTree.Element("testsuites")
    top.append(suite)
    ElementTree.indent(top)
    ElementTree.ElementTree(top).write(path, encoding="utf-8", xml_declaration=True)


def _case(verdict: Verdict, finding: Finding) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        classname=f"hostd.agent.{_fit(verdict.agent)}",
        name=finding.id,
        time=f"{finding.took_ms / 1000:.3f}",
    )
    if finding.result is Result.FAILED:
        failure = ElementTree.SubElement(case, "failure", message=_fit(finding.came), type=finding.id)
        failure.text = _fit(
            f"{finding.title}\nexpected: {finding.expected}\ncame: {finding.came}\nwhy: {finding.why}\n"
            f"evidence: {finding.evidence or 'none'}\n"
        )
    elif finding.result is Result.SKIPPED:
        ElementTree.SubElement(case, "skipped", message=_fit(finding.reason))
    return case


def _fit(text: str) -> str:
    return _NOT_XML.sub("?", text)
