"""Choosing tests and giving them their cells."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_modelformats.errors import ModelFormatsError
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.schema.outcome import PARITY
from pytest_modelformats.session import comparing
from pytest_modelformats.session.campaign import campaign_of
from pytest_modelformats.session.completeness import partial_because
from pytest_modelformats.session.expectations.watch import refuse_update
from pytest_modelformats.session.keeper import Keeper, cell_of
from pytest_modelformats.session.stash import KEEPER, REFUSAL
from pytest_modelformats.session.suites import comparing_suites, default_suites, suites
from pytest_modelformats.source.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    from pytest_modelformats.schema import PlannedCell
    from pytest_modelformats.session.campaign import Campaign

PREFIX = "modelformats"
NO_MODEL = "no model is named: add --mf-model FILE, or models in modelformats.toml"


def choose_tests(config: pytest.Config) -> None:
    """Collect the shipped suites unless test paths were given; ``modelformats::suite::…`` names one of them.

    Raises: UsageError, before anything is collected, for every setting that nothing can be done with.
    """
    from pytest_modelformats.settings.options import validate_names

    known = suites()
    campaign = campaign_of(config)
    chosen = campaign.settings.suites
    try:
        validate_names("suite", chosen, known)
    except ModelFormatsError as error:
        raise pytest.UsageError(str(error)) from None
    if not campaign.plan:
        raise pytest.UsageError(NO_MODEL)
    comparing.check(campaign)
    if config.args_source is not config.ArgsSource.ARGS:
        wanted = default_suites(campaign.settings)
        if chosen:  # a baseline that is named is compared with, whatever the other suites are
            wanted = {*chosen, "availability", *comparing_suites(campaign.settings)}
        config.args = [str(path) for name, path in known.items() if name in wanted]
        return
    for index, arg in enumerate(config.args):
        if str(arg).startswith(f"{PREFIX}::"):
            name, _, rest = str(arg).removeprefix(f"{PREFIX}::").partition("::")
            if name not in known:
                raise pytest.UsageError(f"there is no suite '{name}'{suggest(name, known)}")
            config.args[index] = f"{known[name]}::{rest}" if rest else str(known[name])


class Suite(pytest.Module):
    """A shipped suite, imported under a name of its own: a user's ``test_parity.py`` may stand beside ours."""

    def _getobj(self) -> ModuleType:
        name = f"modelformats_suite_{self.path.stem}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        if spec is None or spec.loader is None:
            msg = f"{self.path} cannot be imported"
            raise self.CollectError(msg)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


def make_suite(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """A shipped suite as a module with a short node id."""
    if module_path.parent != shipped("suites"):
        return None
    name = module_path.stem.removeprefix("test_")
    suite: Suite = Suite.from_parent(parent, path=module_path, nodeid=f"{PREFIX}::{name}")
    return suite


def parametrize(metafunc: pytest.Metafunc) -> None:
    """One item per cell that runs; with ``@pytest.mark.modelformats(cells="not-run")`` per cell that does not."""
    config = metafunc.config
    cells: Sequence[PlannedCell] = ()
    ids: Sequence[str] = ()
    try:
        cells, ids = _parameters(metafunc)
    except pytest.UsageError as error:
        if hasattr(config, "workerinput"):
            raise pytest.Collector.CollectError(str(error)) from None
        # pytest would show it as an error of every file that is collected, each with a traceback.
        config.stash.setdefault(REFUSAL, error)
    metafunc.parametrize("mf_cell", cells, ids=ids, indirect=True)
    if "mf_scenario" in metafunc.fixturenames:
        from pytest_modelformats.checks.throughput import scenarios

        chosen = scenarios(campaign_of(config).settings) if cells else ()
        metafunc.parametrize("mf_scenario", chosen, ids=map(str, chosen), indirect=True)


def _parameters(metafunc: pytest.Metafunc) -> tuple[list[PlannedCell], list[str]]:
    campaign = campaign_of(metafunc.config)
    if not campaign.plan:
        raise pytest.UsageError(f"{metafunc.definition.nodeid} takes a cell, and {NO_MODEL}")
    marker = metafunc.definition.get_closest_marker("modelformats")
    chosen = campaign.parameters[marker is None or marker.kwargs.get("cells", "run") == "run"]
    return comparing.concerned(campaign, chosen, metafunc.fixturenames)


def order(campaign: Campaign, items: list[pytest.Item]) -> None:
    """Sort the items that have a cell by cell, in the places that they hold; drop empty parameter sets.

    Those that judge regressions come last: they look at all cells together.
    """
    from pytest_modelformats.schema import PlannedCell

    places: list[int] = []
    ours: list[tuple[tuple[bool, int], pytest.Item]] = []
    kept: list[pytest.Item] = []
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        planned = params.get("mf_cell")
        if "mf_cell" in params and not isinstance(planned, PlannedCell):
            continue
        if planned is not None:
            places.append(len(kept))
            ours.append((("mf_regression" in getattr(item, "fixturenames", ()), campaign.order[planned.cell.id]), item))
        kept.append(item)
    ours.sort(key=lambda pair: pair[0])
    for place, (_, item) in zip(places, ours, strict=True):
        kept[place] = item
    items[:] = kept


def before_loop(session: pytest.Session, campaign: Campaign) -> None:
    """Open the record (not in an xdist worker) and start the processes that the run will need."""
    cells = ((i, getattr(getattr(i, "callspec", None), "params", {}).get("mf_cell")) for i in session.items)
    found = [(item.nodeid, planned.cell.id) for item, planned in cells if planned is not None]
    ids = [cell for _, cell in found]
    if not ids or session.testsfailed:
        return
    if not hasattr(session.config, "workerinput"):
        try:
            campaign.start_ahead(ids)
            campaign.open_only_source(ids)
            campaign.check_tolerances(ids)
        except ModelFormatsError as error:
            raise pytest.UsageError(str(error)) from None
        selected(session.config, campaign, found)
        _say(session.config, campaign.size_notices(ids))
        comparing.before_loop(session, campaign)


def _say(config: pytest.Config, notices: Sequence[str]) -> None:
    """Write sentences before the first test runs; a model file may have written parts of them."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    for text in notices:
        reporter.ensure_newline()
        reporter.write_line("".join(c if c.isprintable() else "?" for c in f"modelformats: {text}"), yellow=True)


def selected_elsewhere(config: pytest.Config, campaign: Campaign, ids: Sequence[str]) -> None:
    """Record which cells a process of pytest-xdist has selected, by the ids of its items."""
    found = ((i, cell_of(i, campaign)) for i in ids)
    selected(config, campaign, [(i, cell) for i, cell in found if cell is not None])


def selected(config: pytest.Config, campaign: Campaign, found: Sequence[tuple[str, str]]) -> None:
    """Record which cells were selected, by the ids of their items; what was deselected is no part of this run."""
    of_items = [cell for _, cell in found]
    cells = list(dict.fromkeys(of_items))
    parity = {cell for item, cell in found if item.startswith(f"{PREFIX}::{PARITY}::")}
    if not cells:
        return
    if KEEPER not in config.stash:
        refuse_update(config, campaign.settings, campaign.expectations, campaign.cells, cells)
        try:
            config.stash[KEEPER] = Keeper(config, campaign, cells)
        except OSError as error:
            folder = campaign.settings.report_dir
            raise pytest.UsageError(
                f"the report folder {folder} cannot be written ({error.strerror}); choose another with --mf-report-dir"
            ) from None
        config.pluginmanager.register(config.stash[KEEPER], "modelformats-keeper")
    partial = partial_because(config, campaign.settings, cells, len(campaign.plan))
    config.stash[KEEPER].plan(cells, parity, partial=partial)
    config.stash[KEEPER].watch.items = max(len(of_items), config.stash[KEEPER].watch.items)
