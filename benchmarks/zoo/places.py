"""Put faults of known places into real ONNX models and count which operator the product names.

``python -m benchmarks.zoo.places`` writes faulty copies of real models from packages, hands each model and its copies
to the product as ``--mf-candidate``, and prints per class of faults: copies that are wrong, found, located first,
beside, elsewhere, not. Each copy is judged as it is, and once more with every tensor and node renamed, as if another
exporter had written it. It writes reports/places-<date>.json and .md; ``--write`` also writes docs/places.md.
"""

from __future__ import annotations

import argparse
import platform
import random
import shutil
import subprocess
import sys
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from benchmarks import page
from benchmarks.verdict import faults_operators, faults_structure, faults_weights, product  # noqa: F401 - they enter classes
from benchmarks.verdict.graph_edits import FAULTS, Graph, NoSite
from benchmarks.verdict.localised import distance
from benchmarks.zoo.opinion import feed_of
from benchmarks.zoo.real import REAL
from benchmarks.zoo.run import install
from benchmarks.zoo.subject import ROOT, location

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import onnx

    from benchmarks.zoo.real import Entry

WORK = ROOT / ".zoo" / "places"
MODELS = (
    "magika", "vad_openvino", "ocr_cls", "ocr4_rec", "orientation", "centerface", "captcha_old", "watermark_out",
    "dnsmos_v8", "iclabel", "wake_mycroft", "wake_embedding",
)  # fmt: skip
CLASSES = (
    "all tensors rounded to fp16", "all tensors rounded to bf16", "one tensor rounded to bf16", "one weight zeroed",
    "sign of one weight flipped", "weights scaled by 1.01", "bias dropped", "one bias element off by 1 %",
    "batch-norm statistics stale", "a constant factor off by 1 %", "activation's parameter off", "activation swapped",
    "epsilon changed", "one result rounded to bf16", "residual dropped", "order of a concatenation",
)  # fmt: skip
FAR = 20.0
ATTEMPTS = 8
KINDS = ("first", "as a precision", "by its shape", "beside it", "elsewhere", "not located")
RIGHT = KINDS[:3]
PAGE = ROOT / "docs" / "places.md"
HEAD = """# Which operator is wrong? Faults of known places in real models

Made by `python -m benchmarks.zoo.places`: {models} ONNX models that ship in packages of the package index get faults
of {classes} classes, places of each: {draws}. Every copy is handed to `pytest --mf-model FILE --mf-candidate COPY` in
fp32 on ONNX Runtime. A copy counts as wrong where ONNX Runtime's outputs differ from the correct model's by more than
{far:g} times what its optimiser changes there.

{date}, commit {commit}, Python {python}, ONNX Runtime {ort}, onnx {onnx}.
"""
WORDS = """
- **first**: the operator that was changed, or one that the edit added. **as a precision**: every weight of the copy is
  rounded to fp16, and the verdict says that. **by its shape**: the copy's output has another shape, and the verdict
  says that.
- **beside it**: a neighbour in the graph. **elsewhere**: another operator. **not located**: the sentence says why.
"""


class RealGraph(Graph):
    """A graph of someone else's exporter: weights may stand in Constant nodes, nodes may have no name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Name what has no name by what it makes, as the product does."""
        super().__init__(model)
        for node in self.graph.node:
            node.name = node.name or node.output[0]
        from onnx import numpy_helper

        stated = [(n, next((a.t for a in n.attribute if a.name == "value"), None)) for n in self.graph.node]
        self._nodes = {n.output[0]: numpy_helper.to_array(t) for n, t in stated if n.op_type == "Constant" and t}

    def constant(self, name: str) -> np.ndarray | None:
        """The value of an initialiser or of a Constant node."""
        found = super().constant(name)
        return self._nodes.get(name) if found is None else found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status is 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="names of the zoo's ONNX models, by commas")
    parser.add_argument("--classes", default="", help="only fault classes that contain one of these, by commas")
    parser.add_argument("--draws", type=int, default=1, help="places drawn for each class and model")
    parser.add_argument("--write", action="store_true", help="write docs/places.md")
    chosen = parser.parse_args(arguments)
    install()
    words = list(filter(None, chosen.classes.split(",")))
    classes = [c for c in CLASSES if not words or any(word in c for word in words)]
    entries = {entry.name: entry for entry in REAL}
    names = chosen.models.split(",")
    found = [
        case
        for name in names
        for renamed in (False, True)
        for case in _model(entries[name], classes, chosen.draws, renamed)
    ]
    text = "\n".join(_page(found, len(names), len(classes), chosen.draws)) + "\n"
    return page.publish(text, found, "places", PAGE if chosen.write else None, _targets(found))


def _model(entry: Entry, classes: Sequence[str], draws: int, renamed: bool) -> list[dict[str, Any]]:
    import onnx

    folder = WORK / entry.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = RealGraph(onnx.load(location(entry))).model
    onnx.save(model, folder / "source.onnx")
    cases = list(_cases(entry, model, classes, draws, folder))
    for case in cases:
        case["renamed"] = renamed
        if renamed:
            _rename(case)
    options = ["--mf-model", str(folder / "source.onnx"), "--mf-bundles", "0", "--mf-history", "none"]
    options += ["--mf-formats", "onnx", "--mf-precisions", "fp32", "--mf-backends", "onnxruntime"]
    options += [part for spec in entry.inputs for part in ("--mf-input", spec)]
    options += [part for case in cases for part in ("--mf-candidate", str(case["path"]))]
    ran = product.run(folder, "places", options, probe=False)
    cells = {cell.split("~", 1)[1].rsplit("-", 3)[0]: judged for cell, judged in ran.cells.items() if "~" in cell}
    for case in cases:
        judged = cells[case["stem"]]
        case.update(found=judged.caught, said=judged.sentence)
        case.update(_placed(onnx.load(case["path"]), judged.localisation, case["true"]))
        if "fallback" in judged.outcomes.values() and case["fault"].startswith("all "):
            case["word"] = "as a precision"  # every weight of the file: no operator is the first
        elif case["word"] == "not located" and " has shape " in judged.sentence:
            case["word"] = "by its shape"
        what = case["named"] or case["said"][:300]
        print(f"{entry.name}: {case['fault']} at {case['true'][0]}: {case['word']} ({what})", flush=True)
    return cases


def _cases(
    entry: Entry, model: onnx.ModelProto, classes: Sequence[str], draws: int, folder: Path
) -> Iterator[dict[str, Any]]:
    feed = feed_of(list(entry.inputs))
    plain, optimised = _run(model, feed, optimise=False), _run(model, feed, optimise=True)
    floor = max(_apart(plain, optimised), 2.0**-23)
    seen: set[tuple[str, str]] = set()
    for fault in classes:
        for draw in range(1 if fault.startswith("all ") else draws):
            edited = _edited(model, fault, random.Random(f"{entry.name} {fault} {draw}"), feed)
            if edited is None or (fault, edited[1][0]) in seen:
                continue
            seen.add((fault, edited[1][0]))
            apart = _apart(plain, edited[2])
            if apart < FAR * floor:
                continue
            stem = "_".join(["".join(c for c in word if c.isalnum()) for word in fault.split()] + [str(draw)])
            path = folder / f"{stem}.onnx"
            path.write_bytes(edited[0].SerializeToString())
            yield {"model": entry.name, "fault": fault, "stem": stem, "path": str(path), "true": edited[1],
                   "apart": apart}  # fmt: skip


def _edited(
    model: onnx.ModelProto, fault: str, randomness: random.Random, feed: dict[str, np.ndarray]
) -> tuple[onnx.ModelProto, list[str], list[np.ndarray]] | None:
    import onnx

    for _ in range(ATTEMPTS):
        graph = RealGraph(model)
        try:
            node = FAULTS[fault].inject(graph, randomness)
            onnx.checker.check_model(graph.model)
            outputs = _run(graph.model, feed, optimise=False)
        except NoSite:
            return None
        except Exception:  # noqa: BLE001 - a checker and a runtime, each raises what it likes on what does not fit
            continue
        old = {n.name for n in model.graph.node}
        added = [n.name for n in graph.model.graph.node if n.name not in old]
        return graph.model, [node, *added] if node else _first(graph.model), outputs
    return None


def _rename(case: dict[str, Any]) -> None:
    """Nodes and tensors get names that say nothing, as if another exporter had written the file."""
    import onnx

    model = onnx.load(case["path"])
    kept = {v.name for v in (*model.graph.input, *model.graph.output)} | {""}
    made = [name for node in model.graph.node for name in node.output] + [t.name for t in model.graph.initializer]
    names = {name: f"v{i}" for i, name in enumerate(made) if name not in kept}
    nodes = {node.name: f"n{i}" for i, node in enumerate(model.graph.node)}
    for node in model.graph.node:
        node.name = nodes[node.name]
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    del model.graph.value_info[:]
    onnx.save(model, case["path"])
    case["true"] = [nodes[name] for name in case["true"]]


def _first(model: onnx.ModelProto) -> list[str]:
    """Of the nodes with changed weights, those that no other of them leads to: the first wrong ones."""
    changed = {t.name for t in model.graph.initializer if t.name.startswith("fault_")}
    wrong: set[str] = set()
    found = []
    for node in model.graph.node:
        after = any(name in wrong for name in node.input)
        if not after and any(name in changed for name in node.input):
            found.append(node.name)
        if after or any(name in changed for name in node.input):
            wrong.update(node.output)
    return found


def _run(model: onnx.ModelProto, feed: dict[str, np.ndarray], *, optimise: bool) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [value for value in session.run(None, feed) if value.dtype.kind == "f"]


def _apart(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """The largest difference of an element over its output's largest magnitude."""
    import numpy as np

    worst = 0.0
    for a, b in zip(one, other, strict=True):
        if a.shape != b.shape:
            return float("inf")
        scale = float(np.abs(a).max()) if a.size else 0.0
        worst = max(worst, float(np.abs(a.astype(np.float64) - b).max()) / scale if scale else 0.0)
    return worst


def _placed(model: onnx.ModelProto, said: dict[str, Any] | None, true: Sequence[str]) -> dict[str, Any]:
    if not said or not said.get("node"):
        return {"word": "not located", "named": (said or {}).get("reason", "")}
    steps = distance(model, said["node"], tuple(true))
    word = "elsewhere" if steps is None or steps > 1 else "beside it" if steps else "first"
    return {"word": word, "named": f"{said['operator']} {said['node']}; {said['how']}"}


def _targets(found: Sequence[dict[str, Any]]) -> list[page.Target]:
    caught = [case for case in found if case["found"]]
    right = sum(case["word"] in RIGHT for case in caught)
    wrong = sum(case["word"] == "elsewhere" for case in caught)
    count = len(caught) or 1
    return [
        page.Target("wrong copies that are found: all", f"{len(caught)} of {len(found)}", len(caught) == len(found)),
        page.Target(
            "located rightly: at least 95 %", f"{right} of {len(caught)} ({right / count:.1%})", right >= 0.95 * count
        ),
        page.Target("located elsewhere: at most 1 %", f"{wrong} of {len(caught)}", wrong <= 0.01 * count),
    ]


def _page(found: Sequence[dict[str, Any]], models: int, classes: int, draws: int) -> Iterator[str]:
    import onnx
    import onnxruntime

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    yield HEAD.format(
        models=models, classes=classes, draws=draws, far=FAR, date=f"{datetime.now(timezone.utc):%Y-%m-%d}",
        commit=commit.stdout.strip() or "unknown", python=platform.python_version(), ort=onnxruntime.__version__,
        onnx=onnx.__version__,
    )  # fmt: skip
    yield "## Targets\n"
    yield from page.of_targets(_targets(found))
    for title, renamed in (("By class", False), ("By class, every name another one", True)):
        yield f"\n## {title}\n"
        mine = [case for case in found if case["renamed"] is renamed]
        yield from page.markdown_table(("fault", "wrong", "found", *KINDS), _rows(mine))
    yield WORDS
    yield "## Not located rightly\n"
    missed = [case for case in found if case["word"] not in RIGHT]
    yield from page.markdown_table(
        ("model", "fault", "at", "word", "what was said"),
        (
            (
                c["model"],
                c["fault"],
                c["true"][0],
                c["word"],
                (c["named"] or c["said"])[:200].replace("|", "/").replace("\n", " "),
            )
            for c in missed
        ),
    )


def _rows(found: Sequence[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for fault in [*CLASSES, "all"]:
        mine = [case for case in found if fault in (case["fault"], "all")]
        caught = [case for case in mine if case["found"]]
        counts = Counter(case["word"] for case in caught)
        if mine:
            yield (fault, len(mine), len(caught), *(counts[kind] or "" for kind in KINDS))


if __name__ == "__main__":
    sys.exit(main())
