"""The command line and the configuration file, checked and merged into ``Settings``.

The file is ``modelformats.toml`` or the table ``[tool.modelformats]`` of ``pyproject.toml``,
in pytest's rootdir. The command line wins over a model's own table, that over the file's
top-level keys, those over the defaults.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema.limits import Budget, Tolerance
from pytest_modelformats.settings import environments
from pytest_modelformats.settings.nouns import ModelEntry, Settings
from pytest_modelformats.settings.options import BY_KEY
from pytest_modelformats.settings.place import Place, check_keys, default_folder, read_text, read_texts, refusal
from pytest_modelformats.settings.references import locate, safe_name
from pytest_modelformats.settings.values import read, read_flag, read_number, read_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE = "modelformats.toml"
PYPROJECT = "pyproject.toml"
TABLE = "tool.modelformats"
TABLES = ("models", "environments", "tolerances", "budgets")
# Leaves room for pytest itself and what else the machine is doing.
_MEMORY_SHARE = 0.8
# Read here and folded into something else, or named with their unit in Settings.
_FOLDED = frozenset(
    {"model", "arch", "input", "data", "trust", "golden", "candidate", "config", "memory", "cache", "report_dir"}
    | {"env"}
)
_SECONDS = ("time_budget", "localise_budget", "timeout", "fuzz_budget")
# What pytest takes for the root of a project; modelformats.toml lies beside it.
_ROOT_FILES = (FILE, PYPROJECT, "pytest.ini", "tox.ini", "setup.cfg", "setup.py")


class _Found(NamedTuple):
    """The configuration file, its table, and what messages call it."""

    path: Path | None = None
    table: Mapping[str, Any] = {}
    label: str = ""


def project_root(start: Path) -> Path:
    """The nearest folder from ``start`` upwards that pytest would take for the project's root, else ``start``."""
    folders = (start, *start.parents)
    return next((f for f in folders if any((f / name).is_file() for name in _ROOT_FILES)), start)


def load(rootdir: Path, cli: Mapping[str, Any]) -> Settings:
    """The settings that hold for a run; ``cli`` is what ``options.given`` returns.

    Raises: ConfigurationError, naming the option or the file and key, what was found there,
    and what is expected.
    """
    from pytest_modelformats.settings import machine

    found = _find(rootdir, cli.get("config"))
    base = found.path.parent if found.path else rootdir
    place = Place(found.label, base)
    check_keys(found.table, [*(key for key in BY_KEY if key != "config"), *TABLES], found.label)
    options = dict(BY_KEY)
    if cli.get("update_expectations") or found.table.get("update_expectations"):
        # A file that is to be written need not be there yet.
        options["expectations"] = replace(options["expectations"], kind="paths")
    own = {key: read(options[key], value, place.at(key)) for key, value in found.table.items() if key in options}
    said = {
        key: read(options[key], value, Place(options[key].flag, Path.cwd(), typed=False)) for key, value in cli.items()
    }
    chosen = {**own, **said}
    plain = {key: value for key, value in chosen.items() if key not in _FOLDED}
    plain |= {f"{key}_s": plain.pop(key) for key in _SECONDS if key in plain}
    return Settings(
        rootdir=rootdir,
        config_file=found.path,
        search_path=tuple(dict.fromkeys(str(folder) for folder in (rootdir, base, Path.cwd()))),
        models=_models(found.table, place, own, said),
        candidates=chosen.get("candidate", ()),
        environments=environments.selected(found.table, place, chosen),
        memory_bytes=chosen.get("memory") or int(machine.memory_bytes() * _MEMORY_SHARE),
        cache=chosen.get("cache") or default_folder(),
        report_dir=chosen.get("report_dir") or rootdir / str(BY_KEY["report_dir"].default),
        tolerances=tuple(_tolerances(found.table, place)),
        budgets=tuple(_budgets(found.table, place)),
        **plain,
    )


def _on_command_line(key: str) -> Place:
    return Place(BY_KEY[key].flag, Path.cwd(), typed=False)


def _find(rootdir: Path, chosen: str | None) -> _Found:
    if chosen is not None:
        path = Path(chosen).expanduser().absolute()
        if not path.is_file():
            msg = f"--mf-config: there is no file {path}; give a {FILE} or a {PYPROJECT}"
            raise ConfigurationError(msg)
        found = _pyproject(path) if path.name == PYPROJECT else _Found(path, _parse(path), path.name)
        if found is None:
            msg = f"--mf-config: {path} has no table [{TABLE}]; add one, or give a {FILE}"
            raise ConfigurationError(msg)
        return found
    own = rootdir / FILE
    project = _pyproject(rootdir / PYPROJECT)
    if own.is_file() and project:
        msg = (
            f"both {FILE} and [{TABLE}] of {PYPROJECT} configure the project in {rootdir}; "
            f"keep {FILE}: move the keys that it lacks there and delete [{TABLE}]"
        )
        raise ConfigurationError(msg)
    return _Found(own, _parse(own), FILE) if own.is_file() else project or _Found()


def _pyproject(path: Path) -> _Found | None:
    """``[tool.modelformats]``, ``None`` where there is no such table."""
    tool = _parse(path).get("tool") if path.is_file() else None
    if not isinstance(tool, dict) or "modelformats" not in tool:
        return None
    label, table = f"{PYPROJECT} [{TABLE}]", tool["modelformats"]
    return _Found(path, _table(table, Place(label, path.parent)), label)


def _parse(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not valid TOML: {error}"
        raise ConfigurationError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from error


def _table(value: object, place: Place) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refusal(place, value, "a table")
    return value


def _models(
    table: Mapping[str, Any], place: Place, own: Mapping[str, Any], said: Mapping[str, Any]
) -> tuple[ModelEntry, ...]:
    """Every model that was asked for: those of the command line, or else all of the file's.

    A file that is named on the command line and has a table in the configuration keeps what
    that table says of it.
    """
    shared = {**_facts(own), **_facts(said)}
    tables: dict[str, list[ModelEntry]] = {}  # one file may have several, with other inputs or data
    for name, value in _table(table.get("models", {}), place.at("models")).items():
        entry, facts = _model(name, value, place.at(f"models.{name}"))
        tables.setdefault(entry, []).append(ModelEntry(name, entry, **{**_facts(own), **facts, **_facts(said)}))
    about = {key: value for key, value in shared.items() if key != "inputs"}
    chosen = said.get("golden", own.get("golden", ()))
    golden = tuple(ModelEntry("", str(path), golden=True, **about) for path in chosen)
    if "model" in said:
        return (*(e for at in said["model"] for e in tables.get(at, [ModelEntry("", at, **shared)])), *golden)
    if "golden" in said:
        return golden
    named = [entry for entries in tables.values() for entry in entries]
    return (*(ModelEntry("", location, **shared) for location in own.get("model", ())), *named, *golden)


def _facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the options say about models, by the names of ``ModelEntry``."""
    names = {"arch": "arch", "input": "inputs", "data": "data", "trust": "trust"}
    return {names[key]: value for key, value in values.items() if key in names}


def _model(name: str, value: object, place: Place) -> tuple[str, dict[str, Any]]:
    """The location and the other facts of ``[models.<name>]``."""
    table = _table(value, place)
    if safe_name(name) != name:
        msg = f"{place.where}: a model's name is made of letters, digits, '_' and '.'; write '{safe_name(name)}'"
        raise ConfigurationError(msg)
    check_keys(table, ("path", "arch", "inputs", "data", "trust"), place.where)
    if "path" not in table:
        msg = f"{place.where} has no 'path'; say which file, folder or module:callable the model is"
        raise ConfigurationError(msg)
    facts: dict[str, Any] = {}
    for key in ("path", "arch", "data"):
        if key in table:
            text = read_text(table[key], place.at(key), "a path or module:callable")
            facts[key] = locate(text, place.base)
    if "inputs" in table:
        texts = read_texts(table["inputs"], place.at("inputs"), "a text such as 'input:float32[N,3,224,224]'")
        facts["inputs"] = tuple(read_spec(text, place.at("inputs")) for text in texts)
    if "trust" in table:
        facts["trust"] = read_flag(table["trust"], place.at("trust"))
    return facts.pop("path"), facts


def _globs(
    table: Mapping[str, Any], key: str, place: Place, known: tuple[str, ...]
) -> Iterator[tuple[str, Any, Place]]:
    """The entries of a table whose keys are cell globs, each with at least one of the ``known`` keys."""
    for glob, value in _table(table.get(key, {}), place.at(key)).items():
        at = place.at(f"{key}.{glob}")
        entry = _table(value, at)
        check_keys(entry, known, at.where)
        if not entry or not glob:
            msg = f"{at.where} says nothing; give it a cell-glob and one of {', '.join(known)}"
            raise ConfigurationError(msg)
        yield glob, entry, at


def _tolerances(table: Mapping[str, Any], place: Place) -> Iterator[Tolerance]:
    for glob, entry, at in _globs(table, "tolerances", place, ("atol", "rtol", "outputs")):
        numbers = {
            key: read_number(entry[key], at.at(key), "a number of at least 0, such as 1e-4", zero=True)
            for key in ("atol", "rtol")
            if key in entry
        }
        if not numbers:
            msg = f"{at.where} has neither 'atol' nor 'rtol'; give at least one"
            raise ConfigurationError(msg)
        outputs = read_texts(entry.get("outputs", []), at.at("outputs"), "the name of an output")
        yield Tolerance(glob, outputs=outputs, **numbers)


def _budgets(table: Mapping[str, Any], place: Place) -> Iterator[Budget]:
    for glob, entry, at in _globs(table, "budgets", place, ("latency_p50_ms", "size_mb", "peak_memory_mb")):
        yield Budget(glob, **{key: read_number(value, at.at(key), "a number above 0") for key, value in entry.items()})
