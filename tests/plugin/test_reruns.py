"""pytest-rerunfailures: a verdict is kept, whatever runs its test again."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as ET

import pytest

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project

#: From the first failure on, every cell that is produced passes.
_BETTER = """
def pytest_exception_interact():
    (fake_producer.HERE / "behaviour.json").write_text("{}")
"""


@pytest.mark.parametrize(
    "behaviour", [{"lpips": 0.2}, {"do": "crash"}, {"do": "raise"}], ids=["fail", "crash", "raise"]
)
def test_reruns(behaviour: dict[str, object], project: Project, spread: tuple[str, ...]) -> None:
    """Given ``--reruns 2``, when the second try would pass, then every try fails, and the cell is produced once."""
    project.behave({INT8: behaviour})
    project.add_conftest(_BETTER)
    result = project.run_apart("--reruns=2", "--junitxml=junit.xml", *spread)
    result.stdout.fnmatch_lines(["*1 failed, 2 passed, 2 rerun in *"])
    assert Counter(project.produced()) == Counter([REFERENCE, INT8, INT8_TE])
    judged = "lpips" in behaviour or behaviour["do"] == "crash"
    assert project.results().complete == judged
    assert project.results().not_run == ({} if judged else {INT8: "interrupted before it had a verdict"})


def test_every_try_is_the_same_failure(project: Project, spread: tuple[str, ...]) -> None:
    """Given tries that are shown, then they say the same, and JUnit XML has each number once."""
    project.behave({INT8: {"lpips": 0.2}})
    project.add_conftest(_BETTER)
    result = project.run_apart("--reruns=2", "-rRf", "--junitxml=junit.xml", *spread)
    result.assert_outcomes(passed=2, failed=1)
    assert sum("quality.lpips: mean LPIPS 0.2000 over 0.05" in line for line in result.outlines) >= 1
    case = ET.parse(project.path / "junit.xml").getroot().findall(f".//testcase[@name='test_quantized[{INT8}]']")[-1]  # noqa: S314 - pytest wrote it just now
    names = [found.get("name") for found in case.iter("property")]
    assert "lpips" in names
    assert len(names) == len(set(names))
