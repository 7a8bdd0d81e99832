"""What became of baselines, as text."""

from __future__ import annotations

import io
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from qregress.record import Scores
from qregress.report.terminal import printable
from qregress.stats import ratio
from qregress.store.accept import Acceptance, Change
from qregress.store.baseline import Entry
from qregress.store.baselines import Key, Store
from qregress.units import format_bytes

_WIDTH = 124
_NONE = "-"


def changes(found: Sequence[Change], *, width: int, color: bool) -> str:
    """Before and after, one cell a line; a figure that has not changed is shown once."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell", no_wrap=True)
    table.add_column("was")
    for title in ("LPIPS", "CLIP drop", "latents", "memory", "x ref"):
        table.add_column(title, justify="right", no_wrap=True)
    for change in found:
        before = _figures(change.before) if change.before is not None else None
        after = _figures(change.after)
        table.add_row(
            change.id, change.kind, *(_arrow(before[at] if before else None, now) for at, now in enumerate(after))
        )
    stream = io.StringIO()
    console = Console(file=stream, width=max(width, _WIDTH), force_terminal=color, no_color=not color, highlight=False)
    console.print(table)
    for change in found:
        if change.words:
            console.print(printable(f"{change.id}: {change.words}"), markup=False, soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def accepted(store: Store, acceptance: Acceptance, *, width: int, color: bool) -> str:
    """The end of a refresh or of ``qregress accept``."""
    text = changes(acceptance.changes, width=width, color=color) if acceptance.changes else ""
    for cell, why in acceptance.refused.items():
        text += printable(f"{cell}: NOT accepted: {why}\n")
    return text + f"{counts(acceptance)} in {store.root}\n"


def counts(acceptance: Acceptance) -> str:
    """``accepted 3 new, 1 failing``."""
    kinds = Counter(change.kind for change in acceptance.changes)
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"accepted {told}" if told else "nothing was accepted"


def orphans(keys: Sequence[Key], store: Store, config: Path) -> str:
    """Baselines that no cell asks for."""
    lines = [f"{store.root.name}/{key.path}: no cell of {config.name} asks for this baseline" for key in keys]
    return "\n".join([*lines, f"{len(keys)} orphaned baselines; remove them with: qregress orphans --prune"]) + "\n"


def _figures(entry: Entry) -> list[str]:
    scores, memory, timing = entry.baseline.scores, entry.baseline.memory, entry.accepted.timing
    found = ratio(timing.samples_s, timing.reference_s) if timing is not None and timing.reference_s else None
    return [
        f"{statistics.fmean(scores.lpips):.4f}" if scores is not None and scores.lpips else _NONE,
        _drop(scores),
        _latents(scores),
        format_bytes(memory.static_bytes) if memory is not None else _NONE,
        f"{found.value:.3f}" if found is not None else _NONE,
    ]


def _drop(scores: Scores | None) -> str:
    if scores is None or not scores.clip or not scores.clip_reference:
        return _NONE
    return f"{(statistics.fmean(scores.clip_reference) - statistics.fmean(scores.clip)) / 100:+.4f}"


def _latents(scores: Scores | None) -> str:
    known = [value for value in scores.latents if value is not None] if scores is not None else []
    return f"{statistics.fmean(known):.4f}" if known else _NONE


def _arrow(before: str | None, after: str) -> str:
    return after if before is None or before == after else f"{before} -> {after}"
