"""Hooks and stage fixtures only; everything else is imported inside them, when a test asks for a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelformats.session.stash import CAMPAIGN, KEEPER, REFUSAL
from pytest_modelformats.settings.options import add_options

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.checks.throughput import Scenario, Throughput
    from pytest_modelformats.compare.reference import Reference
    from pytest_modelformats.convert.chain import Artifact
    from pytest_modelformats.history.baseline.family import Compared
    from pytest_modelformats.schema import PlannedCell, Timing, Verdict
    from pytest_modelformats.session.campaign import Campaign


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ``--mf-*`` options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Collect the shipped suites when a model is named and no test paths are."""
    config.addinivalue_line("markers", "modelformats(cells): which planned cells a test gets, 'run' or 'not-run'")
    option = config.option
    named = any(getattr(option, f"mf_{key}", None) for key in ("model", "golden", "candidate", "suites"))
    if named or any(str(arg).startswith("modelformats::") for arg in config.args):
        from pytest_modelformats.session import collect

        collect.choose_tests(config)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Give the shipped suites short node ids: ``modelformats::parity::…``."""
    if module_path.parent.name != "suites":
        return None
    from pytest_modelformats.session import collect

    return collect.make_suite(module_path, parent)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give every test that takes a cell one item per planned cell."""
    if "mf_cell" in metafunc.fixturenames:
        from pytest_modelformats.session import collect

        collect.parametrize(metafunc)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let ``--benchmark-only`` and ``--benchmark-skip`` see the tests that time a cell."""
    for name in ("mf_timing", "mf_throughput"):
        if name in getattr(item, "fixturenames", ()):
            from pytest_modelformats.session.pytest_benchmark import advertise

            advertise(item, name)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the items by cell, so that one cell's session serves all of its checks.

    Raises: UsageError, where collecting met a wrong setting.
    """
    if REFUSAL in config.stash:
        raise config.stash[REFUSAL]
    if CAMPAIGN in config.stash:
        from pytest_modelformats.session import collect

        collect.order(config.stash[CAMPAIGN], items)


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remember that tests of cells were left out: the run is a partial one."""
    ours = next((i for i in items if "mf_cell" in getattr(getattr(i, "callspec", None), "params", ())), None)
    if ours is not None:
        from pytest_modelformats.session.completeness import LEFT_OUT

        ours.config.stash.setdefault(LEFT_OUT, ours.name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Learn under pytest-xdist what was selected: the controller collects nothing itself."""
    config = node.config
    if KEEPER in config.stash or any("[" in i and "@" in i for i in ids[:1000]):
        from pytest_modelformats.session import collect

        collect.selected_elsewhere(config, campaign_of(config), ids)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Open the record and start the workers before the first item runs."""
    if CAMPAIGN in session.config.stash and not session.config.option.collectonly:
        from pytest_modelformats.session import collect

        collect.before_loop(session, session.config.stash[CAMPAIGN])
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Conclude a check's outcome, and put its line into the report, which xdist carries."""
    report = yield
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "mf_cell" in callspec.params:
        from pytest_modelformats.session.conclude import conclude

        campaign = campaign_of(item.config)
        update = campaign.settings.update_expectations
        conclude(item, callspec.params["mf_cell"], call, report, campaign.expectations, update=update)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Close the record, judge the run as a whole and render the reports."""
    if CAMPAIGN in session.config.stash:
        from pytest_modelformats.session.finish import finish

        finish(session, int(exitstatus))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the matrix and where the report is."""
    if KEEPER in config.stash:
        from pytest_modelformats.session.finish import summarise

        summarise(terminalreporter, config.stash[KEEPER])


def pytest_unconfigure(config: pytest.Config) -> None:
    """End whatever worker is still there."""
    if CAMPAIGN in config.stash:
        config.stash[CAMPAIGN].close()


def campaign_of(config: pytest.Config) -> Campaign:
    """The run's campaign, started by the first test that asks for a cell; a wrong setting is a usage error."""
    from pytest_modelformats.session import campaign

    return campaign.campaign_of(config)


def _stage(request: pytest.FixtureRequest, name: str, planned: PlannedCell, *more: Any) -> Any:
    from pytest_modelformats.session import stage

    return stage.stage(request.node, campaign_of(request.config), name, planned, *more)


def _parameter(request: pytest.FixtureRequest) -> Any:
    """What a test was parametrised with, which is settled by the arguments of its function."""
    if not hasattr(request, "param"):
        name = request.fixturename
        pytest.fail(
            f"{name} has no value here: a test has one for each that is planned, by its arguments alone. "
            f"Take {name} as an argument of the test; request.getfixturevalue() comes too late",
            pytrace=False,
        )
    return request.param


@pytest.fixture
def mf_cell(request: pytest.FixtureRequest) -> PlannedCell:
    """One planned cell of the matrix: model, format, precision, backend, device, and its chain of conversions."""
    planned: PlannedCell = _parameter(request)
    return planned


@pytest.fixture
def mf_artifact(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Artifact:
    """The model in the cell's format, converted on demand or taken from the cache."""
    artifact: Artifact = _stage(request, "artifact", mf_cell)
    return artifact


@pytest.fixture
def mf_reference(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Reference:
    """The source's float64 truth and rounding noise over the samples."""
    reference: Reference = _stage(request, "reference", mf_cell)
    return reference


@pytest.fixture
def mf_contract(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Verdict:
    """The verdict over names, order, dtypes, ranks and dynamic dimensions of the converted model."""
    verdict: Verdict = _stage(request, "contract", mf_cell)
    return verdict


@pytest.fixture
def mf_outputs(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> list[list[np.ndarray]]:
    """The cell's outputs for every sample: a list per feed of a list of arrays."""
    outputs: list[list[np.ndarray]] = _stage(request, "outputs", mf_cell)
    return outputs


@pytest.fixture
def mf_parity(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Verdict:
    """The verdict: is the converted model still the model, within what rounding explains?"""
    verdict: Verdict = _stage(request, "parity", mf_cell)
    return verdict


@pytest.fixture
def mf_batch(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Verdict:
    """The verdict over batches of 1, 2, 3 and 7, and over each row alone where the source goes by rows."""
    verdict: Verdict = _stage(request, "batch", mf_cell)
    return verdict


@pytest.fixture
def mf_determinism(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Verdict:
    """The verdict over the same input given twice, and once more to a fresh session."""
    verdict: Verdict = _stage(request, "determinism", mf_cell)
    return verdict


@pytest.fixture
def mf_permutation(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Verdict:
    """The verdict over the rows of a batch in another order."""
    verdict: Verdict = _stage(request, "permutation", mf_cell)
    return verdict


@pytest.fixture
def mf_unmodified(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Verdict:
    """The verdict over the caller's input arrays after a call."""
    verdict: Verdict = _stage(request, "unmodified", mf_cell)
    return verdict


@pytest.fixture
def mf_concurrency(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Verdict:
    """The verdict over calls of one session from several threads at once."""
    verdict: Verdict = _stage(request, "concurrency", mf_cell)
    return verdict


@pytest.fixture
def mf_history(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Verdict:
    """The verdict over the same input before and after other inputs."""
    verdict: Verdict = _stage(request, "history", mf_cell)
    return verdict


@pytest.fixture
def mf_threads(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Verdict:
    """The verdict over fresh sessions with one thread and with several."""
    verdict: Verdict = _stage(request, "threads", mf_cell)
    return verdict


@pytest.fixture
def mf_fuzz(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Verdict:
    """The verdict over generated inputs; the smallest one that fails is saved beside the report."""
    verdict: Verdict = _stage(request, "fuzz", mf_cell)
    return verdict


@pytest.fixture
def mf_timing(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Timing:
    """What was measured of the cell in its worker; the samples also go to pytest-benchmark."""
    from pytest_modelformats.session import stage

    timing: Timing = _stage(request, "timing", mf_cell)
    stage.hand_to_benchmark(request, mf_cell, timing)
    return timing


@pytest.fixture
def mf_scenario(request: pytest.FixtureRequest) -> Scenario:
    """One way of loading a cell: a batch size of ``--mf-batch``, or a number of requests of ``--mf-concurrency``."""
    scenario: Scenario = _parameter(request)
    return scenario


@pytest.fixture
def mf_throughput(request: pytest.FixtureRequest, mf_cell: PlannedCell, mf_scenario: Scenario) -> Throughput:
    """What the cell delivers per second in one scenario; the latencies also go to pytest-benchmark."""
    from pytest_modelformats.session import stage

    throughput: Throughput = _stage(request, "throughput", mf_cell, mf_scenario)
    stage.hand_throughput_to_benchmark(request, mf_cell, throughput)
    return throughput


@pytest.fixture
def mf_cost(request: pytest.FixtureRequest, mf_cell: PlannedCell, mf_timing: Timing) -> Verdict:
    """The verdict of the measurement against the budgets of the configuration; passed where there are none."""
    from pytest_modelformats.session import stage

    return stage.cost(request.node, campaign_of(request.config), mf_cell, mf_timing)


@pytest.fixture
def mf_comparison(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Compared:
    """The cell beside its counterpart in the baseline or in another environment, measured now where that can be."""
    from pytest_modelformats.session import comparing

    return comparing.comparison(
        request.node, campaign_of(request.config), mf_cell, lambda: _stage(request, "comparison", mf_cell)
    )


@pytest.fixture
def mf_regression(request: pytest.FixtureRequest, mf_cell: PlannedCell) -> Verdict:
    """The verdict over what changed from the baseline, judged among all cells of the run."""
    from pytest_modelformats.session import comparing

    return comparing.regression(request.node, campaign_of(request.config), mf_cell)


@pytest.fixture
def mf_run(
    request: pytest.FixtureRequest, mf_cell: PlannedCell
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """A function that runs any inputs (name -> array) through the cell and returns its outputs by name."""
    from pytest_modelformats.session import stage

    return stage.runner(request.node, campaign_of(request.config), mf_cell)
