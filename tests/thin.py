"""Virtual environments that hold links to a few installed packages and nothing else: made without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

SITE = Path(np.__file__).parent.parent
# What our own package is called there, however it was installed.
_OURS = ("pytest_modelformats", "_editable_impl", "__editable__")


def environment(folder, *packages):
    """The interpreter of a new environment with these packages; with none named, with all but our own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    links = folder / "links"
    links.mkdir()
    for path in SITE.iterdir():
        name = path.name.partition("-")[0].partition(".")[0]
        wanted = name in packages if packages else not path.name.startswith(_OURS) and path.suffix != ".pth"
        if wanted:
            (links / path.name).symlink_to(path)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "links.pth").write_text(f"{links}\n")
    python = folder / "bin" / "python"
    absent = [p for p in packages if not (links / p).exists() and not (links / f"{p}.py").exists()]
    assert not absent, f"not installed here: {absent}"
    return python


def imports(python, module):
    """Whether an interpreter finds a module, nothing of this process's environment helping it."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)"
    return subprocess.run([str(python), "-I", "-c", code], check=False).returncode == 0
