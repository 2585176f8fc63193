"""The house: where everything lies, who names whom, and which files decide which key."""

from __future__ import annotations

import ast

import pytest
from places import PACKAGE

import pytest_modelformats
from pytest_modelformats.convert import code_digest
from pytest_modelformats.schema import Cell, Decision, PlannedCell, registry

ENTRIES = 18  # of the package's root, besides py.typed
# The files outside systems/ and the registry that name a family or one of its systems, with what they name and why.
# A line that is not needed any more fails, too.
NAMED = {
    "checks/localise/by_module.py": (
        {"torch", "onnx", "openvino", "pytorch", "torchscript", "pt2"},
        "which search fits which pair of formats is to be declared by the families",
    ),
    "checks/localise/by_runtime.py": ({"onnx"}, "the search by exposed tensors is ONNX's alone"),
    "checks/localise/nouns.py": ({"onnx"}, "a search is made in ONNX's worker where nothing else is said"),
    "checks/localise/order.py": ({"onnx", "openvino"}, "the order of the searches is to be declared by the families"),
    "cli/bisect/command.py": ({"golden"}, "an option of that name"),
    "cli/golden.py": ({"golden"}, "the command that makes golden bundles"),
    "cli/main.py": ({"golden"}, "the command that makes golden bundles"),
    "cli/selftest/measure.py": (
        {"onnxruntime", "openvino", "torch", "onnx", "pytorch"},
        "the runtimes whose workload the selftest writes itself",
    ),
    "measure/machine_state.py": ({"torch"}, "a library that can be asked for a device's memory"),
    "plugin.py": ({"golden"}, "an option of that name"),
    "settings/load.py": ({"golden"}, "an option of that name"),
    "settings/options.py": ({"golden"}, "an option of that name"),
    "source/companions.py": ({"onnx", "openvino"}, "the formats with further files are to declare them"),
    "source/identify.py": ({"pytorch", "golden"}, "a callable builds a PyTorch module; stored results are a source"),
}
# In no list of convert/code_digest.py: nothing that is kept under a key is made or measured by these.
IN_NONE = (
    *("pytest_modelformats.plugin", "pytest_modelformats.settings", "pytest_modelformats.source"),
    *(f"pytest_modelformats.{name}" for name in ("checks", "cli", "convert", "history", "plan", "record", "session")),
    *(f"pytest_modelformats.run.{name}" for name in ("cells", "environments", "models", "once", "sides", "sizes")),
    *(f"pytest_modelformats.measure.{name}" for name in ("budget", "machine_state", "two_sides", "uncertainty")),
    *(
        f"pytest_modelformats.compare.{name}"
        for name in (
            *(
                "between_runs",
                "effective_precision",
                "floating",
                "interface",
                "near_ties",
                "next_step",
                "row_noise",
                "second_look",
            ),
            *("rounding", "rounding_steps", "single_input", "stated_execution", "stress", "tolerances", "truths"),
            *("usability", "verdict"),
        )
    ),
)
LISTS = {
    "WORDS": code_digest.WORDS,
    "EVALUATE": code_digest.EVALUATE,
    "MEASURE": code_digest.MEASURE,
    "NOT_SHIPPED": code_digest.NOT_SHIPPED,
    "in none": IN_NONE,
}


def core():
    """Every module of the package that has code and is no family's, by its dotted name."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "systems" and (path.name != "__init__.py" or len(ast.parse(path.read_text()).body) > 1):
            found.add(".".join(("pytest_modelformats", *(part for part in parts if part != "__init__"))))
    return found - {"pytest_modelformats"}  # the version: what is kept is of the code, not of a number


def test_the_root_of_the_package_is_surveyed_at_a_glance():
    found = {path.name for path in PACKAGE.iterdir()} - {"__pycache__", "py.typed"}
    assert len(found) <= ENTRIES, sorted(found)


def test_every_file_of_the_core_is_in_one_list_of_what_decides_a_key_or_said_to_be_in_none():
    files = {name: [f for entry in entries for f in code_digest.files_of(entry)] for name, entries in LISTS.items()}
    listed = [file for found in files.values() for file in found]
    assert sorted(set(listed)) == sorted(listed)
    assert core() - set(listed) == set()


def test_every_file_of_a_family_is_reached_from_what_the_family_declares():
    """A format's, converter's or backend's key holds all that its module imports: nothing lies beside that.

    What searches for a fault is asked by a string, and makes nothing that is kept under a key.
    """
    searches = {n for n in code_digest.files_of("pytest_modelformats.systems") if n.split(".")[3:4] == ["localise"]}
    entries = {
        *searches,
        *(declared.module for declared in registry.formats().values()),
        *(declared.entry.partition(":")[0] for declared in registry.converters().values()),
        *(declared.entry.partition(":")[0] for declared in registry.backends().values()),
    }
    reached, waiting = set(), [name for name in entries if name.startswith("pytest_modelformats.")]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += code_digest._imports(name)
    files = {name for name in code_digest.files_of("pytest_modelformats.systems") if code_digest._imports(name)}
    assert {name for name in files - reached if not name.endswith(".declared")} == set()


@pytest.mark.parametrize("family", registry.SYSTEMS)
def test_a_family_is_one_folder_and_one_word(family):
    declared = code_digest.files_of(f"pytest_modelformats.systems.{family}.declared")
    assert len(declared) == 1
    names = {
        declared.partition(".systems.")[2].partition(".")[0]
        for declared in (
            *(f.module for f in registry.formats().values()),
            *(c.entry for c in registry.converters().values()),
            *(b.entry for b in registry.backends().values()),
        )
        if declared.startswith("pytest_modelformats.")
    }
    assert family in names


def test_every_folder_of_a_family_stands_in_the_registry():
    folders = {path.parent.name for path in (PACKAGE / "systems").glob("*/__init__.py")}
    assert folders == set(registry.SYSTEMS)


def named(path):
    """The registered names and families that stand in a file as values, docstrings aside."""
    known = {*registry.SYSTEMS, *registry.formats(), *registry.converters(), *registry.backends()}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in known:
                found.add(node.value)
            if node.value.startswith("pytest_modelformats.systems."):
                found.add(node.value.split(".")[2])
    return found


def test_no_file_outside_the_systems_and_the_registry_names_one():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith("systems/") and place != "schema/registry.py" and named(path):
            found[place] = named(path)
    assert found == {place: names for place, (names, _) in NAMED.items()}


def test_a_planned_cell_is_written_as_its_id():
    cell = Cell("net", "onnx", "fp32", "onnxruntime", "cpu")
    assert str(PlannedCell(cell, (), "fp32", Decision())) == cell.id == "net-onnx-fp32-onnxruntime@cpu"


def test_what_others_need_stands_at_the_front_door():
    for name in pytest_modelformats.__all__:
        assert getattr(pytest_modelformats, name) is not None
    assert pytest_modelformats.Backend is type(registry.backends()["onnxruntime"])
    with pytest.raises(AttributeError, match="no attribute 'Backends'"):
        pytest_modelformats.Backends  # noqa: B018 - asking for it is what is tested
