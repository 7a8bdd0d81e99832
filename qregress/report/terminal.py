"""Results as text: one table renderer for pytest, ``qregress run`` and whatever reads a run later."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from qregress.record import CellResult, Check
from qregress.units import format_bytes, format_seconds

_STYLES = {"pass": "green", "fail": "red", "crashed": "red", "waived": "yellow", "void": "yellow", "not-run": "yellow"}
_NONE = "-"
NOTHING = 5
#: Verdicts that ``--qregress-require`` turns into failures: nothing was shown to be right.
UNDECIDED = ("void", "not-run", "new")
_LOG_LINES = 20
_WIDTH = 124


def numbers(result: CellResult) -> dict[str, float | str]:
    """A cell's numbers as plain values, for JUnit properties."""
    found: dict[str, float | str] = {name: value for name, value in result.scores.items() if value is not None}
    if result.memory is not None:
        found |= {"static_bytes": result.memory.static_bytes, "peak_bytes": result.memory.peak_bytes}
    if result.latency is not None:
        found["median_s"] = result.latency.median_s
        if result.latency.ratio is not None:
            found["latency_ratio"] = result.latency.ratio
    return found


def headline(failed: list[Check], result: CellResult) -> str:
    """What failed, first: pytest's short summary shows no more than fits beside the test's id, which names the cell."""
    if len(failed) == 1:
        return f"{failed[0].name}: {failed[0].why}"
    if failed:
        return ", ".join(check.name for check in failed)
    return f"{result.verdict}: {result.message}"


def failure(result: CellResult, run: Path) -> str:
    """All that is needed to act on a cell that failed; ``run`` is the run's folder."""
    # A cell that is only waived comes here under --runxfail.
    shown = [check for check in result.checks if check.verdict in {"fail", result.verdict}]
    lines = [headline(shown, result)]
    if shown and result.message:
        lines.append(f"  {result.message}")
    if len(shown) > 1:
        lines += [f"  {check.name}: {check.why}" for check in shown]
    if result.images:
        lines.append(f"  images: {(run / result.images[0]).parent}")
        if result.sheet:
            lines.append(f"  side by side: {run / result.sheet}")
    else:
        lines += [f"  | {line}" for line in (result.log or "").rstrip().splitlines()[-_LOG_LINES:]]
        lines.append(f"  record: {run / 'cells' / result.id / 'record.json'}")
    return printable("\n".join(lines))


def printable(text: str) -> str:
    """Without a terminal's control codes: logs and messages may be a stranger's, out of an archive."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def waived(result: CellResult) -> str:
    """What fails as the configuration says it would."""
    return "; ".join(f"{check.name}: {check.why}" for check in result.checks if check.verdict == "waived")


def undecided(result: CellResult) -> str:
    """Why nothing was decided."""
    why = [f"{check.name}: {check.why}" for check in result.checks if check.verdict in UNDECIDED]
    return f"{result.verdict} (--qregress-require): {'; '.join(why) or result.message}"


def summary(
    results: list[CellResult], not_run: dict[str, str], run_json: Path | None, *, width: int, color: bool
) -> str:
    """The table in the study's columns, one line for each cell without a verdict, counts, and where the results are."""
    stream = io.StringIO()
    console = Console(file=stream, width=max(width, _WIDTH), force_terminal=color, no_color=not color, highlight=False)
    if results:
        console.print(_table(results))
    notes: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            notes.setdefault(note, []).append(result.id)
    for note, ids in notes.items():
        console.print(printable(f"{_which(ids)}: {note}"), markup=False, soft_wrap=True)
    for line in remarks(results, run_json.parent if run_json is not None else None):
        console.print(line, markup=False, soft_wrap=True)
    for why, ids in _news(results).items():
        console.print(printable(f"{_which(ids)} NOT compared with a baseline: {why}"), markup=False, soft_wrap=True)
    if run_json is not None and _news(results):
        hint = f"to compare the next run with this one: qregress accept {run_json.parent} --reason …"
        console.print(hint, markup=False, soft_wrap=True)
    reasons = Counter(reason for cell_id, reason in not_run.items() if cell_id not in {r.id for r in results})
    for reason, count in reasons.items():
        console.print(printable(f"{count} cells NOT run: {reason}"), markup=False, soft_wrap=True)
    console.print(_counts(results, not_run), markup=False, soft_wrap=True)
    if run_json is not None:
        console.print(f"results: {run_json}", markup=False, soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def _which(ids: list[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{len(ids)} cells"


def _news(results: list[CellResult]) -> dict[str, list[str]]:
    """Why there was nothing to compare with -> cells."""
    found: dict[str, list[str]] = {}
    for result in results:
        for why in dict.fromkeys(check.why for check in result.checks if check.verdict == "new"):
            found.setdefault(why, []).append(result.id)
    return found


def _table(results: list[CellResult]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell", no_wrap=True)
    for title in ("memory", "x ref", "seconds", "x ref", "LPIPS mean", "worst", "CLIP", "drop"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for result in results:
        style = _STYLES.get(result.verdict, "")
        table.add_row(*_row(result), f"[{style}]{result.verdict}[/]" if style else result.verdict)
    return table


def _row(result: CellResult) -> list[str]:
    scores, latency = result.scores, result.latency
    return [
        result.id,
        format_bytes(result.memory.static_bytes) if result.memory else _NONE,
        _number(result.memory_ratio, ".3f"),
        format_seconds(latency.median_s) if latency else _NONE,
        _number(latency.ratio if latency else None, ".3f"),
        _number(scores.get("lpips"), ".4f"),
        _number(scores.get("lpips_worst"), ".4f"),
        _number(scores.get("clip"), ".2f"),
        _number(scores.get("clip_drop"), "+.4f"),
    ]


def _number(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)


def remarks(results: list[CellResult], run: Path | None = None) -> list[str]:
    """What a table cannot say of cells that did not fail; ``run`` is the run's folder."""
    return [printable(line) for result in results for line in _remarks(result, run)]


def exit_code(results: list[CellResult], not_run: dict[str, str], *, require: bool) -> int:
    """Pytest's exit codes for cells that were judged outside of it."""
    if not results:
        return NOTHING
    undecided = not_run or any(check.verdict in UNDECIDED for result in results for check in result.checks)
    failed = any(result.verdict in {"fail", "crashed"} for result in results)
    return 1 if failed or (require and undecided) else 0


def _remarks(result: CellResult, run: Path | None) -> list[str]:
    shown = ("void", "waived")
    lines = [f"{result.id}: {c.verdict}: {c.name}: {c.why}" for c in result.checks if c.verdict in shown]
    better = [f"{check.name} ({check.why})" for check in result.checks if check.better]
    if better:
        lines.append(
            f"{result.id}: better than what was accepted: {', '.join(better)}; to hold it there: "
            f"qregress accept {run or 'RUN'} --cell '{result.id}' --reason …"
        )
    if result.status == "not-run":
        lines.append(f"{result.id}: NOT RUN: {result.message}")
    return lines


def _counts(results: list[CellResult], not_run: dict[str, str]) -> str:
    counts = Counter(result.verdict for result in results)
    counts["not-run"] = len(not_run)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "no cells"
