"""``--junitxml``: a cell's numbers are properties of its test case, whoever ran it."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project


def test_numbers_are_properties(project: Project, spread: tuple[str, ...]) -> None:
    """Given cells that passed, failed and crashed, then each case has its verdict and its own numbers, each once."""
    project.behave({INT8: {"lpips": 0.2, "seconds": 1.25}, INT8_TE: {"do": "crash"}})
    project.run_apart("--junitxml=junit.xml", *spread)
    root = ET.parse(project.path / "junit.xml").getroot()  # noqa: S314 - pytest wrote it just now
    found = {}
    for case in root.iter("testcase"):
        properties = [(p.get("name"), p.get("value")) for p in case.iter("property")]
        assert len(dict(properties)) == len(properties)
        found[case.get("name")] = dict(properties)
    reference, int8, crashed = (found[f"test_quantized[{cell}]"] for cell in (REFERENCE, INT8, INT8_TE))
    assert (reference["qregress_verdict"], reference["static_bytes"]) == ("pass", "1000")
    assert {name: int8[name] for name in ("qregress_cell", "qregress_verdict", "lpips", "latency_ratio")} == {
        "qregress_cell": INT8,
        "qregress_verdict": "fail",
        "lpips": "0.2",
        "latency_ratio": "1.25",
    }
    assert crashed == {"qregress_cell": INT8_TE, "qregress_verdict": "crashed"}


def test_the_failure_says_what_failed(project: Project, spread: tuple[str, ...]) -> None:
    """Given a cell over its budget, then the message of its failure starts with the check."""
    project.behave({INT8: {"lpips": 0.2}})
    project.run_apart("--junitxml=junit.xml", *spread)
    failure = ET.parse(project.path / "junit.xml").getroot().find(".//failure")  # noqa: S314 - see above
    assert failure is not None
    assert (failure.get("message") or "").removeprefix("Failed: ").startswith("quality.lpips: mean LPIPS 0.2000")
