"""What code made something is known by its files, without importing them."""

from __future__ import annotations

import sys

import pytest

from pytest_modelformats.convert import code_digest
from pytest_modelformats.convert.code_digest import _imports, imported_digest, module_digest, modules_digest, place_of
from pytest_modelformats.schema import registry

FILES = {
    "__init__.py": "",
    "converter.py": "import json\nfrom .tools import deep\n\n\ndef convert(job):\n    from parcel import late\n",
    "late.py": "def late(): ...\n",
    "tools/__init__.py": "raise RuntimeError('this, too')\n",
    "tools/deep.py": "import parcel.tools.deeper\nfrom parcel.tools import deep  # itself\n",
    "tools/deeper.py": "raise RuntimeError('this is read, not imported')\nfrom . import template\n",
    "tools/template.py": "for {{ name }} in a template: no Python\n",
    "other.py": "",
}


@pytest.fixture
def parcel(tmp_path, monkeypatch):
    """A package of a converter, its helpers, and a module that it does not use (nor its first file, with a version)."""
    folder = tmp_path / "parcel"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [n for n in sys.modules if n.partition(".")[0] == "parcel"]:
        del sys.modules[name]


def digest():
    module_digest.cache_clear()
    imported_digest.cache_clear()
    return imported_digest("parcel.converter")


def test_a_module_is_known_by_its_file():
    assert len(module_digest("pytest_modelformats.systems.onnx.format")) == 64
    assert module_digest("sys") == ""
    assert imported_digest("sys") == ""
    assert imported_digest("nowhere.at_all") == ""


@pytest.mark.parametrize("file", sorted(FILES))
def test_what_it_imports_of_its_package_counts_at_any_place(parcel, file):
    before = digest()
    assert before == digest()
    with (parcel / file).open("a") as opened:
        opened.write("# edited\n")
    assert (digest() != before) == (file not in {"__init__.py", "other.py"})


def test_a_converter_of_this_package_is_known_by_what_it_converts_with():
    """Also by the helpers that only its functions import; by no backend, and not by the plan."""
    asked = _imports("pytest_modelformats.systems.onnx.from_pytorch")
    assert {"pytest_modelformats.systems.onnx.exporting", "pytest_modelformats.systems.torch.loading.load"} <= set(
        asked
    )
    digests = {imported_digest(c.entry.partition(":")[0]) for c in registry.converters().values()}
    assert all(len(found) == 64 for found in digests)
    assert len(digests) > 5


def test_a_list_of_modules_that_names_one_that_moved_is_an_error():
    """A pattern that matches nothing leaves a key in silence; a name does not."""
    assert len(modules_digest(code_digest.EVALUATE)) == 64
    for asked in (
        lambda: modules_digest(("pytest_modelformats.moved",)),
        lambda: place_of("pytest_modelformats.moved"),
    ):
        with pytest.raises(ModuleNotFoundError, match="has no file"):
            asked()


@pytest.mark.parametrize(
    "names", [code_digest.WORDS, code_digest.EVALUATE, code_digest.MEASURE, code_digest.NOT_SHIPPED]
)
def test_every_list_names_files_that_are_there(names):
    assert all(file.is_file() for name in names for file in code_digest.files_of(name).values())


def test_a_package_stands_for_all_that_lies_in_it(parcel):
    assert set(code_digest.files_of("parcel.tools")) == {
        "parcel.tools",
        *(f"parcel.tools.{n}" for n in ("deep", "deeper", "template")),
    }
    before = modules_digest(("parcel.tools",))
    module_digest.cache_clear()
    (parcel / "tools" / "deeper.py").write_text("edited = True")
    assert modules_digest(("parcel.tools",)) != before
