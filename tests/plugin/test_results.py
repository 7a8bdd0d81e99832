"""What a run leaves for other programs: ``run.json``, and properties in JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project


@pytest.fixture
def finished(project: Project) -> Project:
    """A run with a cell that passed, one that failed and one that crashed."""
    project.configure(("lpips = 0.05", 'lpips = 0.05\nlatency = "1.6x"\nmemory = "0.50x"'))
    project.behave({INT8: {"lpips": 0.2, "seconds": 1.2}, INT8_TE: {"do": "crash"}})
    project.run("--junitxml=junit.xml").assert_outcomes(passed=1, failed=2)
    return project


def test_run_json(finished: Project) -> None:
    """Given a run, then ``run.json`` has its schema, fingerprint, times and cells in the matrix's order."""
    run = finished.raw_results()
    assert run["schema"] == 2
    assert run["fingerprint"]["device"] == "cpu"
    assert run["complete"] is True
    assert run["started"] <= run["finished"]
    assert [(cell["id"], cell["status"], cell["verdict"]) for cell in run["cells"]] == [
        (REFERENCE, "ran", "pass"),
        (INT8, "ran", "fail"),
        (INT8_TE, "crashed", "crashed"),
    ]


def test_cell(finished: Project) -> None:
    """Given a cell that failed, then its entry has all that the design promises."""
    cell = finished.raw_results()["cells"][1]
    assert (cell["pipeline"], cell["setting"], cell["workload"]) == ("pixart", "int8", "bs1")
    assert cell["memory"] == {
        "storage_bytes": 1000,
        "static_bytes": 500,
        "peak_bytes": 2000,
        "reserved_bytes": None,
        "load_peak_bytes": 1000,
        "components": {"transformer": 1000},
    }
    assert cell["latency"]["samples_s"] == [1.2] * 6
    assert (cell["latency"]["median_s"], cell["latency"]["ratio"]) == (1.2, 1.2)
    assert cell["latency"]["ratio_low"] <= 1.2 <= cell["latency"]["ratio_high"]
    assert {"coverage", "scores", "images", "sheet", "seconds", "message", "log"} <= set(cell)


def test_checks(finished: Project) -> None:
    """Given a cell that failed one of four checks, then each has value, limit, basis, verdict and reason."""
    checks = finished.raw_results()["cells"][1]["checks"]
    assert [(check["name"], check["verdict"], check["value"], check["limit"]) for check in checks] == [
        ("quality.sanity", "pass", 0.0, 0.0),
        ("quality.lpips", "fail", 0.2, 0.05),
        ("memory.static", "pass", 500.0, 500.0),
        ("latency.ratio", "pass", 1.2, 1.6),
    ]
    assert [check["basis"] for check in checks[1:]] == ["budget", "budget 0.50x", "budget 1.6x"]
    assert all(check["why"] for check in checks)
    assert checks[1]["worst"] == 0.2


def test_images_lie_beside_run_json(finished: Project) -> None:
    """Given a cell that ran, then the paths in its entry start at the folder of ``run.json``."""
    folder = finished.path / ".qregress" / "latest"
    cell = finished.raw_results()["cells"][1]
    assert len(cell["images"]) == 2
    assert all((folder / name).is_file() for name in [*cell["images"], cell["sheet"]])


def test_crashed_cell(finished: Project) -> None:
    """Given a cell that crashed, then its entry says how, with what was printed, and has no figures."""
    cell = finished.raw_results()["cells"][2]
    assert cell["message"] == "the worker was ended by SIGSEGV; it was at: images 1/2"
    assert cell["log"].startswith("last words in ")
    assert (cell["memory"], cell["latency"], cell["checks"], cell["images"]) == (None, None, [], [])


def test_junit_has_the_numbers(finished: Project) -> None:
    """Given ``--junitxml``, then each cell's numbers are properties of its test case."""
    cases = ET.parse(finished.path / "junit.xml").getroot().iter("testcase")  # noqa: S314 - pytest wrote it just now
    properties = [{p.get("name"): p.get("value") for p in case.iter("property")} for case in cases]
    assert [found["qregress_cell"] for found in properties] == [REFERENCE, INT8, INT8_TE]
    assert [found["qregress_verdict"] for found in properties] == ["pass", "fail", "crashed"]
    assert {name: properties[1][name] for name in ("lpips", "static_bytes", "latency_ratio", "clip_drop")} == {
        "lpips": "0.2",
        "static_bytes": "500",
        "latency_ratio": "1.2",
        "clip_drop": "0.005",
    }
