"""pytest hooks. Imported by every pytest run of an environment: nothing heavy here, each hook delegates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from qregress.pytest_session import CellHandle, PytestSession

FIXTURE = "qregress_cell"

_KEY = pytest.StashKey["PytestSession"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; their default is ``None``, so that what was given can be told from what was not."""
    group = parser.getgroup("qregress", "regression gate for quantized diffusion pipelines")
    add = group.addoption
    add("--qregress-config", metavar="PATH", help="the matrix (default: qregress.toml, else the embedded one)")
    add("--qregress-device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N (default: cpu)")
    add("--qregress-out", metavar="DIR", help="where results go (default: .qregress/latest)")
    add("--qregress-require", action="store_true", default=None, help="a cell not run or not judged is a failure")
    add("--qregress-inprocess", action="store_true", default=None, help="no worker process, for --pdb")


def pytest_configure(config: pytest.Config) -> None:
    """Watch reports where they all arrive: in the only process, or under xdist in the controller."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder(config), "qregress-recorder")


def _session(config: pytest.Config) -> PytestSession:
    """The session object, made when it is first needed."""
    if _KEY not in config.stash:
        from qregress.pytest_session import PytestSession

        config.stash[_KEY] = PytestSession(config)
    return config.stash[_KEY]


def pytest_sessionstart(session: pytest.Session) -> None:
    """A configuration that is there, or a device that was asked for, is checked whatever the tests are."""
    config = session.config
    given = config.getoption("qregress_config") or config.getoption("qregress_device")
    if given or (config.rootpath / "qregress.toml").exists():
        _session(config).check()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item per cell for each test that takes one."""
    if FIXTURE in metafunc.fixturenames:
        _session(metafunc.config).parametrize(metafunc)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take away the cells that this device does not run, and count them."""
    if _KEY in config.stash:
        config.stash[_KEY].select(items)


@pytest.fixture
def qregress_cell(request: pytest.FixtureRequest) -> CellHandle:
    """A cell of the matrix; ``qregress_cell.check()`` runs and judges it."""
    handle: CellHandle = _session(request.config).handle(request.param, request.node)
    return handle


class _Recorder:
    """Takes judged cells from the reports of their tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A cell's test names its cell in ``user_properties``, which survive xdist."""
        for name, value in report.user_properties if report.when == "call" else ():
            if name == FIXTURE:
                _session(self._config).take(str(value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, and what was not judged."""
    if _KEY in config.stash:
        config.stash[_KEY].summarize(terminalreporter)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """End the worker and complete ``run.json``, before the summary is written."""
    if _KEY in session.config.stash:
        session.config.stash[_KEY].finish(session)
    yield
