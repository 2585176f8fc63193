"""The wheel is whole: installed where no checkout is near, it runs its suites on a model."""

from __future__ import annotations

import site
import subprocess
import sys
import venv
import zipfile

import pytest
from inner_run import PARITY
from places import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The python of a fresh environment that has the wheel, and everything else from the environment at hand."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    (own,) = folder.glob("lib/python*/site-packages")
    python = folder / "bin" / "python"
    # Appended by hand rather than by addsitedir, which would run the .pth file that puts the checkout on the path.
    (own / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "--force-reinstall", "--target", str(own), str(wheel)], check=True)
    return python


def names_in(wheel, folder):
    prefix = f"pytest_modelformats/{folder}/"
    return {n.removeprefix(prefix) for n in zipfile.ZipFile(wheel).namelist() if n.startswith(prefix)}


@pytest.mark.parametrize("folder", ["suites", "fixtures"])
def test_the_wheel_carries_what_ships(wheel, folder):
    beside = {str(p.relative_to(ROOT / folder)) for p in (ROOT / folder).rglob("*.py")}
    assert beside
    assert names_in(wheel, folder) >= beside
    assert not [name for name in names_in(wheel, folder) if "__pycache__" in name]


def test_the_wheel_carries_the_package_and_nothing_of_the_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    package = {str(p.relative_to(ROOT)) for p in (ROOT / "pytest_modelformats").rglob("*.py")}
    assert package <= set(names)
    assert "pytest_modelformats/record/record.schema.json" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"pytest_modelformats"}


def test_the_installed_wheel_runs_its_suites(installed, tiny, shelf, pytester, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    where = "import pytest_modelformats, pytest_modelformats.session.suites as s; print(pytest_modelformats.__file__)"
    where += "; print(*map(str, s.suites().values()), sep='\\n')"
    said = subprocess.run([str(installed), "-c", where], cwd=pytester.path, capture_output=True, text=True, check=True)
    assert all(line.startswith(str(installed.parent.parent)) for line in said.stdout.split()), said.stdout
    command = [str(installed), "-m", "pytest", "-p", "no:cacheprovider", "--benchmark-disable", f"--mf-model={tiny}"]
    ran = subprocess.run(
        [*command, *PARITY, f"--mf-cache={shelf / 'cache'}"],
        cwd=pytester.path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout
    assert (pytester.path / "reports" / "latest" / "index.html").exists()
