"""The tolerances and budgets of the configuration name cells and outputs that there are.

A tolerance that names what is not there would leave the output that was meant to the measured
noise, or its cell, without a word.
"""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.compare.tolerances import matching
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema import PRECISIONS
from pytest_modelformats.schema.names import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from pytest_modelformats.schema import PlannedCell
    from pytest_modelformats.settings.nouns import Settings


def check_outputs(settings: Settings, cell: str, outputs: Sequence[str], others: Callable[[], Iterable[str]]) -> None:
    """Every output that the tolerances of a cell name is one; ``others`` are those of the run's other models.

    Raises: ConfigurationError, with the output that was probably meant.
    """
    for tolerance in settings.tolerances:
        if fnmatch.fnmatchcase(cell, tolerance.glob):
            for pattern in tolerance.outputs:
                # A table may be about several models, of which only some have the output.
                if not matching(pattern, outputs) and not matching(pattern, others()):
                    raise ConfigurationError(
                        f"{_place(settings, tolerance.glob)}: '{pattern}' is no output of the model of {cell}"
                        f"{suggest(pattern, outputs)}"
                    )


def check_globs(
    settings: Settings,
    cells: Sequence[PlannedCell],
    everything: Callable[[Settings], Iterable[PlannedCell]],
    narrowed: Collection[str],
) -> None:
    """Every cell-glob of a tolerance or a budget matches a cell that could be planned.

    ``everything(settings)`` plans; ``narrowed`` are the options of the command line that choose cells. A glob
    about another model, a candidate or an environment is not judged where the command line chose these.
    Raises: ConfigurationError, with the cell that was probably meant.
    """
    found = {planned.cell.id for planned in cells}
    globs = [*(("tolerances", t.glob) for t in settings.tolerances), *(("budgets", b.glob) for b in settings.budgets)]
    missed = [(table, glob) for table, glob in globs if not fnmatch.filter(found, glob)]
    if not missed:
        return
    whole = replace(settings, formats=(), backends=(), devices=(), cells=(), all_routes=True, slow=True)
    found = {planned.cell.id for planned in everything(replace(whole, precisions=tuple(PRECISIONS)))}
    models = {planned.cell.model for planned in cells}
    if all("~" in cell for cell in found):
        return  # a golden bundle has candidates alone, and the file may be about the cells of its model
    for table, glob in missed:
        elsewhere = (
            ("--mf-model" in narrowed and not any(glob.startswith((f"{m}-", f"{m}~")) for m in models))
            or ("~" in glob and ("--mf-candidate" in narrowed or not settings.candidates))
            or ("+" in glob and ("--mf-env" in narrowed or not settings.environments))
        )
        if not elsewhere and not fnmatch.filter(found, glob):
            near = suggest(glob, found)
            hint = near if "did you mean" in near else "; 'modelformats plan MODEL' shows their ids"
            raise ConfigurationError(f"{_place(settings, glob, table)} matches no cell that can be planned{hint}")


def _place(settings: Settings, glob: str, table: str = "tolerances") -> str:
    name = settings.config_file.name if settings.config_file else "the configuration"
    return f'{name}: [{table}."{glob}"]'
