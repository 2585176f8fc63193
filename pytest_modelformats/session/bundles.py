"""Keeps a reproduction bundle of the first failing check of a cell; the outcome never depends on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelformats.session.conclude import check_name, note_of
from pytest_modelformats.session.expectations.read import find
from pytest_modelformats.session.stash import KEEPER

if TYPE_CHECKING:
    from pytest_modelformats.checks.bundle.nouns import Submodel
    from pytest_modelformats.errors import ModelFormatsError
    from pytest_modelformats.schema import PlannedCell, Verdict
    from pytest_modelformats.session.campaign import Campaign

FOLDER = "bundles"
BUNDLED = pytest.StashKey[set[str]]()


def keep_bundle(
    item: pytest.Item,
    campaign: Campaign,
    planned: PlannedCell,
    stage: str,
    ended: Verdict | ModelFormatsError,
    submodel: Submodel | None = None,
) -> None:
    """The note of the test names the bundle that was written, or why there is none.

    One per cell, ``--mf-bundles`` per process; none for what is expected to fail. ``submodel`` is
    the smallest failing part of the model, if it is known.
    """
    from pytest_modelformats.checks.bundle import case as bundle
    from pytest_modelformats.checks.bundle.nouns import RunFacts

    cell, check, note = planned.cell.id, check_name(item), note_of(item)
    bundled = item.config.stash.setdefault(BUNDLED, set())
    known = find(campaign.expectations, cell, check) is not None
    if known or cell in bundled or len(bundled) >= campaign.settings.bundles:
        return
    try:
        command = tuple(str(arg) for arg in item.config.invocation_params.args)
        run = RunFacts(campaign.stages, campaign.settings, command, campaign.versions())
        written = bundle.keep(run, planned, check, stage, ended, _folder(item.config, campaign), submodel)
    except Exception as error:  # noqa: BLE001 - the failure that is to be reproduced counts, whatever goes wrong here
        note.data["bundle_error"] = f"no reproduction bundle: {type(error).__name__}: {error}"[:600]
        return
    if written is not None:
        bundled.add(cell)
        # Under pytest-xdist the run's folder is the controller's: it takes the bundle there (see ``adopt``).
        note.data["bundle"] = f"{FOLDER}/{written.name}" if KEEPER in item.config.stash else str(written)


def _folder(config: pytest.Config, campaign: Campaign) -> Path:
    if KEEPER in config.stash:
        return config.stash[KEEPER].recorder.folder / FOLDER
    run = getattr(config, "workerinput", {}).get("testrunuid", "run")
    return campaign.settings.report_dir / f".{FOLDER}-{run}"


def adopt(line: dict[str, Any], folder: Path) -> None:
    """Take a bundle that another process has written into the run's folder; the line then says where it is."""
    data = line.get("data") or {}
    written = Path(data.get("bundle") or "")
    if not written.is_absolute():
        return
    if not written.is_dir():  # on another host
        del data["bundle"]
        return
    target = folder / FOLDER / written.name
    target.parent.mkdir(exist_ok=True)
    for path in (written, written.with_name(f"{written.name}.zip")):
        if path.exists():
            shutil.move(str(path), str(target.parent / path.name))
    if not any(written.parent.iterdir()):
        written.parent.rmdir()
    data["bundle"] = f"{FOLDER}/{target.name}"
