"""What docs/found.md says was found in others' software: each line's bundle shows it by itself."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from places import ROOT

FOUND = ROOT / "reports" / "found"
BUNDLES = sorted(path.name for path in FOUND.iterdir() if path.is_dir())


def test_every_line_has_its_bundle_and_every_bundle_its_line():
    page = (ROOT / "docs" / "found.md").read_text("utf-8")
    assert sorted(re.findall(r"\(\.\./reports/found/(\w+)\)", page)) == BUNDLES


@pytest.mark.parametrize("name", BUNDLES)
def test_no_path_of_a_machine_is_in_a_bundle(name):
    texts = [p.read_text("utf-8") for p in (FOUND / name).rglob("*") if p.suffix in {".json", ".txt", ".py"}]
    assert not [word for text in texts for word in re.findall(r'"(/(?:tmp|work|root|home)[^"]*)"', text)]


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLES)
def test_the_defect_is_there_in_the_version_that_the_page_names(name, tmp_path):
    """In the version of the runtime that it was found in; in a later one it may be gone."""
    script = FOUND / name / "repro.py"
    for package, found_in in made_with(name):
        if version(package).split("+")[0] != found_in.split("+")[0]:
            pytest.skip(f"found in {package} {found_in}")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "The bug exists" in done.stdout) == (1, True), done.stdout + done.stderr


def made_with(name):
    """The packages that ``pip install ...`` in a bundle's README or script names, with their versions."""
    folder = FOUND / name
    said = folder / "README.txt" if (folder / "README.txt").exists() else folder / "repro.py"
    return re.findall(r"([a-z]+)==([\d.]+)", said.read_text("utf-8"))


@pytest.mark.parametrize("name", BUNDLES)
def test_every_bundle_names_what_it_was_found_in(name):
    assert {package for package, _ in made_with(name)} & {"onnxruntime", "openvino", "onnx", "torch"}
