"""``qregress run``: the matrix without writing a test file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qregress import registry
from qregress.config import EVERYTHING
from qregress.pipelines import factories
from qregress.plugin import FIXTURE, KEY
from qregress.report.progress import Display

if TYPE_CHECKING:
    import pytest

_MATRIX = Path(__file__).with_name("matrix_cells.py")


def add(verbs: Any) -> None:
    """Describe the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "run",
        help="run and judge the matrix (qregress.toml, else the embedded one)",
        description="Run and judge the matrix of ./qregress.toml, or the embedded one where there is none.",
    )
    parser.add_argument("-k", metavar="EXPRESSION", help="only cells whose id matches, as in pytest")
    parser.add_argument("-x", "--exitfirst", action="store_true", help="stop at the first failure")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--select", metavar="NAME", help="a selection of the configuration (default: its own choice)")
    which.add_argument("--all", dest="select", action="store_const", const=EVERYTHING, help="all cells: --select all")
    parser.add_argument("--config", metavar="PATH", help="another configuration")
    parser.add_argument("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--out", metavar="DIR", help="where results go (default: .qregress/latest)")
    parser.add_argument("--baselines", metavar="DIR", help="accepted baselines (default: baselines)")
    parser.add_argument("--refresh", metavar="MODE", help="make cells baselines: missing, failing or all")
    parser.add_argument("--reason", metavar="TEXT", help="why; kept with the baselines")
    parser.add_argument("--require", action="store_true", help="a cell that is not run or not judged is a failure")
    parser.add_argument("--resume", action="store_true", help="leave cells that a run in --out has finished")
    parser.add_argument("--inprocess", action="store_true", help="no worker process; a crash ends everything")
    parser.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Run pytest over one packaged test file, with the plugin and nothing else of the environment."""
    import pytest

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        os.environ.pop(name, None)
    display = Display(sys.stderr)
    reporter = _Reporter(display)
    arguments = [
        str(_MATRIX),
        "-p",
        "qregress.plugin",
        "-p",
        "no:terminal",
        "-p",
        "no:cacheprovider",
        "--capture=no",  # it would swallow the live line; what workers print never comes here
        "-c",
        os.devnull,
        f"--rootdir={Path.cwd()}",
        f"--confcutdir={_MATRIX.parent}",
    ]
    names = ("config", "device", "select", "out", "baselines", "refresh", "reason")
    given = {name: getattr(options, name) for name in names}
    arguments += [f"--qregress-{name}={value}" for name, value in given.items() if value is not None]
    arguments += ["--qregress-require"] if options.require else []
    arguments += ["--qregress-resume"] if options.resume else []
    arguments += ["--qregress-inprocess"] if options.inprocess else []
    arguments += ["-x"] if options.exitfirst else []
    arguments += ["-k", options.k] if options.k else []
    with display, registry.scope():
        factories.import_conftest(Path.cwd())
        code = pytest.main(arguments, plugins=[_Named(display), reporter])
    if code == pytest.ExitCode.NO_TESTS_COLLECTED and options.k:
        print(f"no cell was run: none that would run here matches -k {options.k!r}", file=sys.stderr)
    return int(code)


class _Named:
    """Makes the display known under the name that the plugin looks for."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def pytest_configure(self, config: pytest.Config) -> None:
        """Register it."""
        config.pluginmanager.register(self._display, "qregress-display")


class _Reporter:
    """Writes what failed and the table, in place of pytest's own reporter."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be collected has no other way to be seen."""
        if report.failed:
            print(report.longreprtext, file=sys.stderr)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """An error outside of a verdict: never lost."""
        if report.failed and not any(name == FIXTURE for name, _ in report.user_properties):
            self._display.line(report.longreprtext)

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """The end of the run."""
        session = config.stash.get(KEY, None)
        self._display.stop()
        if session is not None and session.has_news:
            for text in session.failures():
                print(f"\n{text}")
            print()
            print(session.report(self._display.width, color=sys.stdout.isatty()), end="")
