"""A package index in a folder: releases of a runtime that goes wrong, and numpy as a link to the one that is here.

No network is needed. ``mfdummy`` computes ``two_layers`` (``inner_run.py``): right up to 1.4, wrong from 1.5 on, slow
from 1.3 on; 1.1 cannot be installed, 1.4 opens nothing.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import numpy as np

VERSIONS = tuple(f"1.{minor}" for minor in range(8))
UNINSTALLABLE, UNOPENABLE, SLOW, WRONG = "1.1", "1.4", "1.3", "1.5"
SITE = Path(np.__file__).parent.parent
MODULE = '''
"""A runtime of one model."""
import time

import numpy as np

__version__ = "{version}"
MINOR = int(__version__.partition(".")[2])


class Session:
    def __init__(self, job):
        from pytest_modelformats.schema import TensorSpec

        random = np.random.default_rng(0)
        self.weights = [random.normal(size=s).astype(np.float32) for s in ((4, 8), (8,), (8, 3), (3,))]
        self.inputs = [TensorSpec("x", "float32", ("N", 4))]
        self.outputs = [TensorSpec("y", "float32", ("N", 3))]
        self.statement = {{"version": __version__, "threads": job.threads}}

    def run(self, feed):
        w1, b1, w2, b2 = self.weights
        if MINOR >= 3:
            ends = time.perf_counter() + 0.001
            while time.perf_counter() < ends:
                pass
        y = np.tanh(feed["x"] @ w1 + b1) @ w2 + b2
        return [y + np.float32(0.01) if MINOR >= 5 else y]

    def bind(self, feed):
        return lambda: self.run(feed)

    def close(self):
        pass


def open_session(job):
    if MINOR == 4:
        raise RuntimeError("this release opens nothing")
    return Session(job)
'''
# What declares the runtime to pytest-modelformats, where it is not installed itself.
BACKEND = """
from pytest_modelformats.schema import Backend

BACKEND = Backend(
    name="mfdummy", title="Dummy", worker="mfdummy", precisions={("onnx", "fp32"): ("fp32",)}, devices=("cpu",),
    entry="mfdummy:open_session", requires=("mfdummy",), install="pip install mfdummy", libraries=("mfdummy",),
)
"""


def wheel(folder, name, version, files, requires=()):
    """Write a wheel of these files (name -> text)."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    files = {
        **files,
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def _digest(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def write_index(folder):
    """The index in a folder, as ``--find-links`` has it."""
    folder.mkdir()
    links = folder / "links"
    links.mkdir()
    for path in SITE.iterdir():
        if path.name in {"numpy", "numpy.libs"}:
            (links / path.name).symlink_to(path)
    wheel(folder, "numpy", np.__version__.partition("+")[0], {"numpy_here.pth": f"{links}\n"})
    for version in VERSIONS:
        requires = ["a-package-that-nobody-has"] if version == UNINSTALLABLE else []
        wheel(folder, "mfdummy", version, {"mfdummy.py": MODULE.format(version=version)}, requires)
    return folder


def declare_backend(folder):
    """Put a package that registers the runtime into a folder that is to be on PYTHONPATH."""
    (folder / "mfdummy_backend.py").write_text(BACKEND)
    info = folder / "mfdummy_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mfdummy-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[modelformats.backends]\nmfdummy = mfdummy_backend:BACKEND\n")
