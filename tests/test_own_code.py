"""What code made something is known by its files, without importing them."""

from __future__ import annotations

import sys

import pytest

from pytest_modelformats import registry
from pytest_modelformats.own_code import _imports, imported_digest, module_digest

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
    assert len(module_digest("pytest_modelformats.formats.onnx")) == 64
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
    asked = _imports("pytest_modelformats.converters.onnx_from_pytorch")
    assert {"pytest_modelformats.converters.onnx_export", "pytest_modelformats.formats.torch_loading"} <= set(asked)
    digests = {imported_digest(c.entry.partition(":")[0]) for c in registry.converters().values()}
    assert all(len(found) == 64 for found in digests)
    assert len(digests) > 5
