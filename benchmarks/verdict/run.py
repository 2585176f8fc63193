"""Prove the verdict: faults are put into correct models, and the product is to notice each that has an effect.

``python -m benchmarks.verdict.run`` (``make bench-verdict``) injects faults of every class into every
architecture, runs the product on them, runs it on faithful conversions of random networks, and prints
what was caught, missed and falsely accused, beside the rules that others use. It writes
reports/verdict-<date>.json and .md; ``--write`` also writes docs/verdict-benchmark.md. The exit status
is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.verdict import (
    cases,
    effective,
    faults_structure,
    faults_torch,
    graded,
    networks,
    plain,
    product,
    subjects,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

QUICK = ("mlp_1", "text")
FAITHFUL_FAMILIES = ("cnn", "depthwise", "residual", "groupnorm", "mlp", "mlpnorm", "attention", "lstm", "gru")
FAITHFUL_SEEDS = range(100, 109)
FAITHFUL_LANES = (
    "--mf-formats", "onnx,onnx.legacy,openvino,torchscript,pt2,pytorch",
    "--mf-backends", "torch,torch-export,torchscript,onnxruntime,openvino",
    "--mf-precisions", "fp32,fp16,bf16,fp16-weights,default",
)  # fmt: skip
SAMPLES, SEED, REAL_ROWS = 8, 0, 256  # what the product judges on by default


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status says whether every target is met."""
    chosen = _parsed(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from benchmarks.verdict import table

    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="bench-verdict-"))
    try:
        found = measure(chosen, work)
    finally:
        if not chosen.keep:
            shutil.rmtree(work, ignore_errors=True)
    return table.show(found, write=chosen.write)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two architectures, one draw, few faithful networks")
    parser.add_argument("--seed", type=int, default=0, help="of the places of the faults and of the inputs")
    parser.add_argument("--draws", type=int, default=1, help="places per class and architecture")
    parser.add_argument("--architectures", default="", help=f"of {', '.join(networks.ARCHITECTURES)}")
    parser.add_argument("--faults", default="", help="only classes whose name holds one of these, by commas")
    parser.add_argument("--parts", default="faults,graded,faithful", help="which parts to run")
    parser.add_argument("--note", default="", help="a sentence for the page: what was special about this run")
    parser.add_argument("--write", action="store_true", help="write docs/verdict-benchmark.md")
    parser.add_argument("--keep", action="store_true", help="leave the working folder in place and say where it is")
    chosen = parser.parse_args(arguments)
    names = tuple(filter(None, chosen.architectures.split(","))) or (QUICK if chosen.quick else ())
    chosen.architectures = names or tuple(networks.ARCHITECTURES)
    unknown = [name for name in chosen.architectures if name not in networks.ARCHITECTURES]
    if unknown:
        parser.error(f"unknown architecture {unknown[0]}; there are {', '.join(networks.ARCHITECTURES)}")
    return chosen


def measure(chosen: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Everything that was found: cases with what the product said, faithful cells, machine, versions, seconds."""
    found: dict[str, Any] = {
        "cases": [],
        "faithful": [],
        "seconds": {},
        "argv": sys.argv[1:],
        "seed": chosen.seed,
        "note": chosen.note,
    }
    found["date"] = datetime.now(timezone.utc).date().isoformat()
    found["architectures"] = {name: networks.ARCHITECTURES[name].kind for name in chosen.architectures}
    parts = chosen.parts.split(",")
    if chosen.keep:
        print(f"working in {work}", flush=True)
    for name in chosen.architectures if {"faults", "graded"} & set(parts) else ():
        _fault_part(name, chosen, work / name, found)
    if "faithful" in parts:
        _faithful_part(chosen, work / "faithful", found)
    return found


def _wanted(classes: dict[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    words = [word.strip() for word in chosen.faults.split(",") if word.strip()]
    return {n: c for n, c in classes.items() if not words or n.startswith("no fault") or any(w in n for w in words)}


def _fault_part(name: str, chosen: argparse.Namespace, folder: Path, found: dict[str, Any]) -> None:
    started = time.perf_counter()
    subject = subjects.prepare(name, folder)
    draws = chosen.draws
    base = cases.ground(subject, chosen.seed)
    parts = chosen.parts.split(",")
    classes = _wanted({**faults_structure.every_class(), **faults_structure.FAITHFUL}, chosen)
    of_onnx = {**(classes if "faults" in parts else {}), **(graded.CLASSES if "graded" in parts else {})}
    of_torch = _wanted({**faults_torch.FAULTS, **faults_torch.FAITHFUL}, chosen) if "faults" in parts else {}
    made = list(cases.onnx_cases(subject, base, folder, of_onnx, draws, chosen.seed))
    made += cases.torch_cases(subject, base, folder, of_torch, draws, chosen.seed)
    _write_fp32(folder, name, subject.module, subject.input_names, _samples(subject))
    generated = time.perf_counter() - started
    candidates = [part for case in made for part in ("--mf-candidate", str(case.path))]
    lanes = ["--mf-formats", "onnx,torchscript", "--mf-backends", "onnxruntime,torchscript", "--mf-precisions", "fp32"]
    ran = product.run(folder, "faults", ["--mf-model", subject.given, *lanes, *candidates])
    judged = {cell.split("~", 1)[1].rsplit("-", 3)[0]: c for cell, c in ran.cells.items() if "~" in cell}
    lines = [plain.of_case(case, judged[case.stem]) for case in made]
    found["cases"] += lines
    # The model's own conversions, beside the candidates, are faithful cells too.
    found["faithful"] += [plain.of_cell(c) for cell, c in ran.cells.items() if "~" not in cell]
    found.setdefault("header", ran.header)
    found["seconds"][name] = {"making": generated, "product": ran.seconds, "cases": len(made)}
    missed = [line["stem"] for line in lines if line["effective"] and not line["caught"]]
    said = f"{len(made)} cases, {generated:.0f} s to make, {ran.seconds:.0f} s in the product"
    print(f"{name}: {said}, missed {len(missed)} {', '.join(missed)}", flush=True)


def _samples(subject: subjects.Subject) -> Sequence[dict[str, np.ndarray]]:
    from pytest_modelformats.source.samples import make_samples

    if subject.name == "digits_cnn":
        images = networks.module_of(networks.DIGITS).load_data()["image"][:REAL_ROWS]
        return ({subject.input_names[0]: images},)
    return make_samples(subject.description.inputs, SAMPLES, SEED).feeds


def _write_fp32(folder: Path, name: str, module: Any, names: list[str], feeds: Sequence[dict[str, np.ndarray]]) -> None:
    """The model's fp32 outputs, where ``probe.py`` finds them."""
    import numpy as np

    outputs = effective.run_module(module, names, feeds, double=False)
    arrays = {f"{feed}_{i}": a for feed, values in enumerate(outputs) for i, a in enumerate(values)}
    np.savez(folder / f"{name}.npz", **arrays)


def _faithful_part(chosen: argparse.Namespace, folder: Path, found: dict[str, Any]) -> None:
    """Random networks in every lane: nothing is to be accused."""
    from pytest_modelformats.schema import TensorSpec
    from pytest_modelformats.source.samples import make_samples

    folder.mkdir(parents=True)
    seeds = FAITHFUL_SEEDS[:1] if chosen.quick else FAITHFUL_SEEDS
    families = FAITHFUL_FAMILIES[4:6] if chosen.quick else FAITHFUL_FAMILIES
    recipe = networks.module_of(networks.RANDOM)
    for seed in seeds:
        models = []
        for family in families:
            name = f"{family}_{seed + 1000 * chosen.seed}"
            factory = getattr(recipe, name)
            specs = [TensorSpec.parse(text) for text in factory.INPUTS]
            feeds = make_samples(specs, SAMPLES, SEED).feeds
            _write_fp32(folder, name, factory(), [s.name for s in specs], feeds)
            models += ["--mf-model", f"{networks.RANDOM}:{name}"]
        ran = product.run(folder, f"faithful-{seed}", [*models, *FAITHFUL_LANES])
        found["faithful"] += [plain.of_cell(cell) for cell in ran.cells.values()]
        found.setdefault("header", ran.header)
        found["seconds"][f"faithful {seed}"] = {"product": ran.seconds, "cells": len(ran.cells)}
        accused = [c.cell for c in ran.cells.values() if c.caught]
        said = f"{len(ran.cells)} cells in {ran.seconds:.0f} s"
        print(f"faithful, seed {seed}: {said}, accused {len(accused)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
