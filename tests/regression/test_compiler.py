"""A machine without a C++ compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.regression.harness import FEW

if TYPE_CHECKING:
    from tests.regression.harness import Overlay, Runner

INT4 = '[settings.int4]\nweights = { transformer = "int4" }\ndtype = "bfloat16"\n'
INT8 = '[settings.int8]\nweights = { transformer = "int8" }\n'


def test_int4_says_what_is_missing_and_the_rest_is_judged(run_qregress: Runner, overlay: Overlay) -> None:
    """Given an unbuilt extension and no compiler, int4 is not run, in one line, which ``--require`` makes red."""
    nowhere = run_qregress.folder / "no-compiler"
    nowhere.mkdir()
    unbuilt = overlay.replace(
        "optimum.quanto", "quantize.py", "from fnmatch import fnmatch\n", "from fnmatch import fnmatch\n\n"
    )
    finished = run_qregress(INT4 + INT8, "--require", overlay=unbuilt, variables={"PATH": str(nowhere)}, **FEW)
    verdicts = {cell.setting: cell.verdict for cell in finished.run.cells}
    said = [line for line in finished.output.splitlines() if "no C++ compiler found" in line]
    assert (finished.code, verdicts) == (1, {"reference": "pass", "int4": "not-run", "int8": "pass"}), finished.output
    assert len(said) == 1, finished.output
