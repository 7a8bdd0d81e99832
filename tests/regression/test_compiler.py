"""A machine without a C++ compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.regression.harness import Overlay, Runner

INT4 = '[settings.int4]\nweights = { transformer = "int4" }\ndtype = "bfloat16"\n'
INT8 = '[settings.int8]\nweights = { transformer = "int8" }\n'


@pytest.mark.parametrize(("arguments", "code"), [((), 0), (("--require",), 1)], ids=["plain", "require"])
def test_int4_says_what_is_missing_and_the_rest_is_judged(
    run_qregress: Runner, overlay: Overlay, arguments: tuple[str, ...], code: int
) -> None:
    """Given an unbuilt extension and no compiler, int4 is not run, in one line; int8 is judged."""
    nowhere = run_qregress.folder / "no-compiler"
    nowhere.mkdir()
    unbuilt = overlay.replace(
        "optimum.quanto", "quantize.py", "from fnmatch import fnmatch\n", "from fnmatch import fnmatch\n\n"
    )
    finished = run_qregress(INT4 + INT8, *arguments, overlay=unbuilt, variables={"PATH": str(nowhere)})
    verdicts = {cell.setting: cell.verdict for cell in finished.run.cells}
    said = [line for line in finished.output.splitlines() if "no C++ compiler found" in line]
    assert (finished.code, verdicts) == (code, {"reference": "pass", "int4": "not-run", "int8": "pass"}), (
        finished.output
    )
    assert len(said) == 1, finished.output
