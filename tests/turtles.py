"""An outside package whose artifacts change from run to run: what is planted in them is what a comparison is to find.

``TURTLES`` says which formats there are and what is planted in each, as JSON: ``{"slow": {"spin_us": 60}}``. A plant
makes the converter another version, so that it gets an artifact of its own beside the faithful one.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from pathlib import Path

from pytest_modelformats.schema import Backend, Converter, Format

METADATA = "Metadata-Version: 2.1\nName: turtles\nVersion: 1.0\n"
PLANTS = json.loads(os.environ.get("TURTLES", "{}"))


def check(artifact):
    """Nothing can be wrong with it."""


def sniff(path, head):
    """No file is recognised."""


def convert(job):
    """Write the weights, and what is planted beside or in them."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    weights = {w.name: numpy_helper.to_array(w) for w in onnx.load(str(job.input)).graph.initializer}
    plant = PLANTS[job.output.name.partition(".")[2].partition(".")[0]]
    scale = np.float32(1 + plant.get("vague", 0.0))
    arrays = {name: w * scale if name == "w2" else w for name, w in weights.items()}
    arrays["spin_us"] = np.array(plant.get("spin_us", 0))
    arrays["padding"] = np.zeros(plant.get("padding", 0), np.uint8)
    if plant.get("breaks"):
        raise ValueError("no rule for this model any more")
    with job.output.open("wb") as handle:
        np.savez(handle, **arrays)
    return {}


class Session:
    """The two layers in numpy."""

    def __init__(self, job):
        import numpy as np

        with np.load(job.artifact) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.spin_ns = int(self.arrays["spin_us"]) * 1000
        self.inputs, self.outputs, self.statement = job.inputs, job.outputs, {}

    def run(self, feed):
        """Run once, and spin for as long as was planted."""
        import numpy as np

        w = self.arrays
        y = np.tanh(feed["x"] @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]
        until = time.perf_counter_ns() + self.spin_ns
        while time.perf_counter_ns() < until:
            pass
        return [y]

    def bind(self, feed):
        """Hand the inputs over."""
        return lambda: self.run(feed)

    def close(self):
        """Let go."""


def open_session(job):
    """Open it."""
    return Session(job)


BACKEND = Backend(
    name="turtle",
    title="Turtle",
    worker="turtle",
    precisions={(name, "fp32"): ("fp32",) for name in PLANTS},
    devices=("cpu",),
    entry="turtles:open_session",
    requires=("numpy",),
)


def __getattr__(name):
    kind, _, which = name.partition("_")
    if kind == "format":
        return Format(which, which, "turtles", f".{which}.npz", ("fp32",), ("numpy",))
    if kind == "converter":
        version = 1 + zlib.crc32(json.dumps(PLANTS[which], sort_keys=True).encode()) % 10_000
        made = {"precisions": {"fp32": ("fp32",)}, "entry": "turtles:convert", "route": "made", "version": version}
        return Converter(f"{which}_from_onnx", "onnx", which, **made)
    raise AttributeError(name)


def install(site, plants):
    """The package as an installer leaves it in a folder, with the formats that are planted."""
    (site / "turtles.py").write_text(Path(__file__).read_text())
    info = site / "turtles-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(METADATA)
    lines = ["[modelformats.backends]", "turtle = turtles:BACKEND", "[modelformats.formats]"]
    lines += [f"{name} = turtles:format_{name}" for name in plants]
    lines += ["[modelformats.converters]", *(f"{name}_from_onnx = turtles:converter_{name}" for name in plants)]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return {"PYTHONPATH": str(site), "TURTLES": json.dumps(plants)}
