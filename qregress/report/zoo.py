"""The pocket pipelines as a table."""

from __future__ import annotations

import io
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from qregress.pipelines.folder import Folder, read_json, weights
from qregress.units import format_bytes

_WIDTH = 100


def table(found: Mapping[str, Folder], *, width: int, color: bool) -> str:
    """A line per pipeline with its totals, and one for each of its components that has weights.

    Sizes are read from the files' headers. Raises ``SourceError`` for a file that is not whole.
    """
    lines = Table(box=None, pad_edge=False, header_style="bold")
    lines.add_column("pipeline", no_wrap=True)
    lines.add_column("class", no_wrap=True)
    for title in ("parameters", "files"):
        lines.add_column(title, justify="right", no_wrap=True)
    for name, folder in found.items():
        index = read_json(folder.path / "model_index.json")
        sizes = {part: weights(folder.shared.get(part, folder.path / part)) for part in folder.components}
        total = sum(size.parameters for size in sizes.values()), sum(size.size for size in sizes.values())
        lines.add_row(f"[bold]{name}[/]", folder.class_name, *_figures(*total))
        for part, size in sizes.items():
            lines.add_row(f"  {part}", index[part][1], *_figures(size.parameters, size.size))
    stream = io.StringIO()
    console = Console(file=stream, width=max(width, _WIDTH), force_terminal=color, no_color=not color, highlight=False)
    console.print(lines)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def _figures(parameters: int, size: int) -> tuple[str, str]:
    return f"{parameters:,}", format_bytes(size)
