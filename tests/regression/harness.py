"""Real runs in real processes: small matrices, and libraries damaged on purpose in front of the import path."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from qregress.record import Run, read
from qregress.store.run import RunFolder

#: By default two prompts, the pipeline's own steps: the embedded images and memory in a quarter of the time.
HEAD = """
[pipelines.{pipeline}]
source = "pocket:{pipeline}"
[workloads.bs1]
count = {count}
{steps}
[baselines]
store = "{store}"
[run]
latency_pairs = {pairs}
latency_time = "1 ms"
deadline = "{deadline}"
"""

#: A process that a shell started in the background ignores Ctrl-C, and so do its children: undo that first.
_START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from qregress.cli import main
sys.exit(main())
"""


#: Where how good images are is not the question.
FEW: dict[str, Any] = {"count": 1, "steps": 2}


class Finished(msgspec.Struct, frozen=True):
    """A run that has ended."""

    code: int
    output: str
    folder: RunFolder

    @property
    def run(self) -> Run:
        """Its run.json."""
        assert self.folder.run_json.exists(), self.output
        return read(self.folder.run_json, Run)

    def failed_checks(self) -> dict[str, list[str]]:
        """Cell id -> names of its failed checks, cells without any left out."""
        found = {cell.id: [check.name for check in cell.checks if check.verdict == "fail"] for cell in self.run.cells}
        return {cell_id: names for cell_id, names in found.items() if names}


class Runner:
    """Starts ``qregress run`` in a folder of its own.

    It does not wait for whoever else measures on this machine: what is asserted of time here is a ratio of calls in
    turn, by a factor of two, and most of a run's time is one thread's, importing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(
        self,
        config: str,
        *arguments: str,
        overlay: Path | None = None,
        name: str = "out",
        deadline: str = "10 min",
        pairs: int = 1,
        count: int = 2,
        store: str = "none",
        pipeline: str = "pixart-sigma",
        steps: int | None = None,
        variables: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a run of a configuration; ``overlay`` comes first on the import path."""
        path = self.folder / "matrix.toml"
        fewer = "" if steps is None else f"steps = {steps}"
        head = HEAD.format(deadline=deadline, pairs=pairs, count=count, store=store, pipeline=pipeline, steps=fewer)
        path.write_text(head + config, encoding="utf-8")
        locks = self.folder / "tmp"
        locks.mkdir(exist_ok=True)
        environment = os.environ | {"TMPDIR": str(locks)} | (variables or {})
        if overlay is not None:
            before = environment.get("PYTHONPATH")  # what is tested may come from there
            environment["PYTHONPATH"] = f"{overlay}{os.pathsep}{before}" if before else str(overlay)
        command = [sys.executable, "-c", _START, "run", f"--config={path}", f"--out={self.folder / name}"]
        return subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=self.folder,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str], name: str = "out") -> Finished:
        """Wait for it."""
        output, _ = process.communicate(timeout=600)
        return Finished(process.returncode, output, RunFolder(self.folder / name))

    def __call__(self, config: str, *arguments: str, name: str = "out", **options: Any) -> Finished:
        """Start, with the options of ``start``, and wait."""
        return self.finish(self.start(config, *arguments, name=name, **options), name)


#: The body of optimum-quanto's ``freeze``, for overlays that add to it.
FREEZE = """        if isinstance(m, QModuleMixin):
            m.freeze()
"""


class Overlay:
    """A copy of an installed package, made of links, with some lines of some files replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def replace(self, package: str, module: str, old: str, new: str) -> Path:
        """Replace ``old``, which stands there exactly once, in a module of a package; returns the import path."""
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).parent
        target = self.folder / Path(*package.split("."))
        if not target.exists():
            self._link(source, target)
        file = target / module
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1
        file.unlink()
        file.write_text(text.replace(old, new), encoding="utf-8")
        return self.folder

    @staticmethod
    def _link(source: Path, target: Path) -> None:
        for path in source.rglob("*"):
            inside = path.relative_to(source)
            if path.is_dir() or {"__pycache__", "build"}.intersection(inside.parts):
                continue  # what the package has compiled for itself belongs to the healthy one
            link = target / inside
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
