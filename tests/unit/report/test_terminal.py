"""Results as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from qregress.judge.verdict import judge
from qregress.record import CellResult
from qregress.report import terminal
from tests.making import (
    INT8,
    INT8_TE,
    REFERENCE,
    make_check,
    make_memory,
    make_record,
    make_scores,
    make_timing,
)

RUN = Path("out")


def judged(**fields: Any) -> CellResult:
    """A judged cell that has figures; ``fields`` replace what its record has."""
    given: dict[str, Any] = {
        "memory": make_memory(3 * 1024**3),
        "timing": make_timing(1.5, 1.0),
        "scores": make_scores(clip=(30.0,), clip_reference=(31.0,)),
        "images": ("images/00.png",),
    }
    return judge(make_record(**(given | fields)), make_record(REFERENCE, memory=make_memory(4 * 1024**3)), {})


def with_check(verdict: str, why: str) -> CellResult:
    """A cell that one check has judged."""
    result = judged()
    check = make_check(verdict, why=why)  # type: ignore[arg-type]
    return CellResult(
        **{name: getattr(result, name) for name in result.__struct_fields__} | {"checks": (check,), "verdict": verdict}
    )


def summary(results: list[CellResult], not_run: dict[str, str] | None = None) -> list[str]:
    """The lines of the summary on a narrow terminal."""
    text = terminal.summary(results, not_run or {}, RUN / "run.json", width=40, color=False)
    return [line.rstrip() for line in text.splitlines()]


def test_table_has_the_studys_columns() -> None:
    """Given a cell with all figures, then its row has them, each beside its ratio, and nothing is cut off."""
    header, row, note, counts, results = summary([judged()])
    assert " ".join(header.split()) == "cell memory x ref seconds x ref LPIPS mean worst CLIP drop verdict"
    assert row.split() == [
        INT8,
        "3.000",
        "GiB",
        "0.750",
        "1.500",
        "s",
        "1.500",
        "0.0150",
        "0.0200",
        "30.00",
        "+0.0100",
        "pass",
    ]
    assert note == f"{INT8}: measured but not judged, as no budget is set: lpips, memory, latency"
    assert counts == "1 pass"
    assert results == f"results: {RUN / 'run.json'}"


def test_table_without_figures() -> None:
    """Given a cell that crashed, then its row shows that there is nothing."""
    record = make_record(status="crashed", message="ended by SIGSEGV")
    assert summary([judge(record, None, {})])[1].split() == [INT8, *["-"] * 8, "crashed"]


def test_cells_without_a_verdict_are_named() -> None:
    """Given cells that were not decided, not run or not chosen here, then each is said, with its reason."""
    missing = judge(make_record(INT8_TE, status="not-run", message="no compiler"), None, {})
    not_run = {INT8_TE: "no compiler", "sd3/a/bs1": "needs cuda", "sd3/b/bs1": "needs cuda"}
    lines = summary([with_check("void", "too noisy"), missing], not_run)
    assert f"{INT8}: void: quality.lpips: too noisy" in lines
    assert f"{INT8_TE}: NOT RUN: no compiler" in lines
    assert "2 cells NOT run: needs cuda" in lines
    assert "1 void, 3 not-run" in lines


def test_nothing_at_all() -> None:
    """Given no cell and no file, then there is no table and no path."""
    assert terminal.summary([], {}, None, width=80, color=False) == "no cells\n"


def test_colour_only_on_request() -> None:
    """Given a terminal, then verdicts are coloured; elsewhere no escape is written."""
    shown = terminal.summary([judged()], {}, None, width=80, color=True)
    assert "\x1b[" in shown
    assert "\x1b[" not in terminal.summary([judged()], {}, None, width=80, color=False)


def test_names_are_not_markup() -> None:
    """Given a reason with brackets, then it is shown as it is."""
    assert "1 cells NOT run: [red] or not" in summary([], {INT8: "[red] or not"})


def test_failure_says_where_the_images_are() -> None:
    """Given a cell over its limit, then value, limit, its origin and the images' paths are shown."""
    lines = terminal.failure(with_check("fail", "mean 0.1 over 0.05 (budget)"), RUN).splitlines()
    assert lines == [
        "quality.lpips: mean 0.1 over 0.05 (budget)",
        f"  images: {RUN / 'cells' / INT8 / 'images'}",
        f"  side by side: {RUN / 'cells' / INT8 / 'sheet.png'}",
    ]


def test_several_failures_are_all_named_first() -> None:
    """Given two checks that failed, then the first line names both, and each has a line of its own."""
    checks = (make_check("fail", why="too far"), make_check("pass", "x"), make_check("fail", "memory.peak", "too much"))
    result = msgspec.structs.replace(judged(), checks=checks, verdict="fail")
    lines = terminal.failure(result, RUN).splitlines()
    assert lines[:3] == ["quality.lpips, memory.peak", "  quality.lpips: too far", "  memory.peak: too much"]


def test_crash_shows_the_last_words() -> None:
    """Given a cell that crashed, then its message and the end of what it printed are shown, and where its record is."""
    log = "\n".join(f"line {number}" for number in range(100))
    result = judge(make_record(status="crashed", message="ended by SIGSEGV", log=log), None, {})
    lines = terminal.failure(result, RUN).splitlines()
    assert lines[0] == "crashed: ended by SIGSEGV"
    assert lines[1:-1] == [f"  | line {number}" for number in range(80, 100)]
    assert lines[-1] == f"  record: {RUN / 'cells' / INT8 / 'record.json'}"


def test_undecided() -> None:
    """Given a cell that must be decided and was not, then the reason is one line."""
    assert terminal.undecided(with_check("void", "too noisy")) == (
        "void (--qregress-require): quality.lpips: too noisy"
    )
    missing = judge(make_record(status="not-run", message="no compiler"), None, {})
    assert terminal.undecided(missing) == "not-run (--qregress-require): no compiler"


def test_numbers_are_plain() -> None:
    """Given a cell, then its numbers have names for other programs; without figures there are none."""
    assert terminal.numbers(judged()) == {
        "lpips": 0.015,
        "lpips_worst": 0.02,
        "clip": 30.0,
        "clip_drop": 0.01,
        "static_bytes": 3 * 1024**3,
        "peak_bytes": 3 * 1024**3,
        "median_s": 1.5,
        "latency_ratio": 1.5,
    }
    assert terminal.numbers(judge(make_record(), None, {})) == {}


def test_control_codes_are_not_printed() -> None:
    """Given a log, a message, a note and reasons with codes of a terminal, then their words are shown, and no code."""
    codes = "\x1b[2J\x1b]0;x\x07\x9b1m\r\u202e"
    record = make_record(status="crashed", message=f"why{codes}", log=f"one{codes}\n\ttwo{codes}done\n")
    crashed = judge(record, None, {})
    noted = judged(scores=make_scores(note=f"a note{codes}"))
    void = with_check("void", f"too noisy{codes}")
    missing = judge(make_record(INT8_TE, status="not-run", message=f"no{codes}"), None, {})
    found = terminal.failure(crashed, RUN)
    assert found.splitlines()[0].startswith("crashed: why")
    assert found.splitlines()[1].startswith("  | one")
    assert any(line.startswith("  |  two") for line in found.splitlines())
    assert "done" in found
    texts = [found, *summary([crashed, noted, void, missing], {"a/b/c": f"needs{codes}"}), *terminal.remarks([void])]
    assert not [c for text in texts for c in text if not c.isprintable() and c != "\n"]
    assert any("a note" in text for text in texts)
    assert any("cells NOT run: needs" in text for text in texts)
