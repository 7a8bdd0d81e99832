"""pytest hooks. Imported by every pytest run of an environment: nothing heavy here, each hook delegates."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from qregress import registry

if TYPE_CHECKING:
    from collections.abc import Generator

    from qregress.items.handle import CellHandle
    from qregress.items.session import PytestSession

FIXTURE = "qregress_cell"

KEY = pytest.StashKey["PytestSession"]()
_ERROR = pytest.StashKey[pytest.UsageError]()
#: One for all processes of a run.
RUN_ID = pytest.StashKey[str]()
_RUN = "qregress_run"
#: What a worker of xdist tells its controller.
_OUTPUT = "qregress"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; their default is ``None``, so that what was given can be told from what was not."""
    group = parser.getgroup("qregress", "regression gate for quantized diffusion pipelines")
    add = group.addoption
    add("--qregress-config", metavar="PATH", help="the matrix (default: qregress.toml, else the embedded one)")
    add("--qregress-device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N (default: cpu)")
    add("--qregress-select", metavar="NAME", help="a selection of the configuration, or all")
    add("--qregress-out", metavar="DIR", help="where results go (default: .qregress/latest)")
    add("--qregress-baselines", metavar="DIR", help="accepted baselines (default: baselines)")
    add("--qregress-refresh", metavar="MODE", help="make cells of this run baselines: missing, failing or all")
    add("--qregress-reason", metavar="TEXT", help="why; kept with the baselines")
    add("--qregress-require", action="store_true", default=None, help="a cell not run or not judged is a failure")
    add(
        "--qregress-resume", action="store_true", default=None, help="leave cells that a run in --qregress-out finished"
    )
    add("--qregress-inprocess", action="store_true", default=None, help="no worker process, for --pdb")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Pipelines that a conftest.py registers are this run's alone, however many runs a process has."""
    early_config.add_cleanup(registry.remember())


def pytest_configure(config: pytest.Config) -> None:
    """Watch reports where they all arrive: in the only process, or under xdist in the controller."""
    worker = getattr(config, "workerinput", None)
    config.stash[RUN_ID] = os.urandom(16).hex() if worker is None else worker.get(_RUN, worker["testrunuid"])
    config.pluginmanager.register(_Order(), "qregress-order")
    if worker is None:
        config.pluginmanager.register(_Recorder(config), "qregress-recorder")


def _session(config: pytest.Config) -> PytestSession:
    """The session object, made when it is first needed."""
    if KEY not in config.stash:
        from qregress.items.session import PytestSession

        config.stash[KEY] = PytestSession(config)
    return config.stash[KEY]


def pytest_sessionstart(session: pytest.Session) -> None:
    """A configuration that is there, or a device that was asked for, is checked whatever the tests are."""
    config = session.config
    names = ("config", "device", "select", "out", "baselines", "refresh", "reason")
    given = any(config.getoption(f"qregress_{name}") is not None for name in names)
    if given or (config.rootpath / "qregress.toml").exists():
        _session(config).check()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item per cell for each test that takes one."""
    if FIXTURE not in metafunc.fixturenames:
        return
    try:
        _session(metafunc.config).parametrize(metafunc)
    except pytest.UsageError as error:
        # Raised here it would end as one more file that cannot be collected; see below.
        metafunc.config.stash[_ERROR] = error
        metafunc.parametrize(FIXTURE, [], indirect=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take away the cells that this device does not run, and count them."""
    try:
        if _ERROR in config.stash:
            raise config.stash[_ERROR]
        if KEY in config.stash:
            config.stash[KEY].select(items)
    except pytest.UsageError as error:
        if not hasattr(config, "workerinput"):
            raise
        # Only the controller of xdist can end a run with a line and exit code 4.
        config.stash[_ERROR] = error
        config.workeroutput[_OUTPUT] = {"error": str(error)}  # type: ignore[attr-defined]
        items.clear()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say what will run, now that no plugin takes anything away any more."""
    if KEY in session.config.stash:
        session.config.stash[KEY].announce(session.items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Cells of one pipeline go to one worker of xdist, unless ``--dist`` asks for another way."""
    if config.getoption("dist") != "load":
        return None
    from qregress.items.xdist_scheduler import PipelineScheduling, cell_in

    return PipelineScheduling(config, log, lambda node_id: cell_in(node_id, lambda: _session(config).pipelines))


@pytest.fixture
def qregress_cell(request: pytest.FixtureRequest) -> CellHandle:
    """A cell of the matrix; ``qregress_cell.check()`` runs and judges it."""
    handle: CellHandle = _session(request.config).handle(request.param, request.node)
    return handle


class _Order:
    """The outermost of what orders items: registered after pytest's own for ``--ff``, and done when all others are."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, None, None]:
        """Keep cells of one pipeline together, however items were shuffled."""
        yield
        if KEY in config.stash:
            config.stash[KEY].regroup(items)


class _Recorder:
    """Takes judged cells from the reports of their tests, and what the workers of xdist tell at their end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A cell's test names its cell in ``user_properties``, which survive xdist."""
        for name, value in report.user_properties if report.when == "call" else ():
            if name == FIXTURE:
                _session(self._config).take(str(value))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A worker is made: it joins this run."""
        node.workerinput[_RUN] = self._config.stash[RUN_ID]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended: which cells it was to run, which it does not run here, or why it could not start."""
        told = getattr(node, "workeroutput", {}).get(_OUTPUT, {})
        if "error" in told:
            self._config.stash[_ERROR] = pytest.UsageError(told["error"])
        elif told:
            _session(self._config).merge(told)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Make room on a GPU."""
    if KEY in item.config.stash:
        item.config.stash[KEY].leave(item, nextitem)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, and what was not judged."""
    if KEY in config.stash:
        config.stash[KEY].summarize(terminalreporter)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """End the worker and complete ``run.json``, before the summary is written."""
    config = session.config
    if KEY in config.stash and _ERROR not in config.stash:
        try:
            told = config.stash[KEY].finish(session)
            if hasattr(config, "workerinput"):
                config.workeroutput[_OUTPUT] = told  # type: ignore[attr-defined]
        except pytest.UsageError as error:
            config.stash[_ERROR] = error  # raised below, after the summary
    yield
    raised = session.exitstatus == pytest.ExitCode.USAGE_ERROR or hasattr(config, "workerinput")
    if _ERROR in config.stash and not raised:
        raise config.stash[_ERROR]
