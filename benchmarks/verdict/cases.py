"""Cases: a fault of one class in one architecture, written to a file, with its effect in float64."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.verdict import effective, faults_structure, faults_torch
from benchmarks.verdict.graph_edits import Fault, Graph, NoSite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import onnx

    from benchmarks.verdict.effective import Effect
    from benchmarks.verdict.subjects import Subject

ATTEMPTS = 6  # places tried for one case: at some, the edited graph does not run
# The exporter folds batch norms into weights and rounds those to fp32: up to 1.9 of the rounding noise was seen.
FOLDED = 10.0
# A traced file differs from the module that it was traced from by rounding: far less than this of the output's scale.
SAME_FILE = 1e-3


@dataclass(frozen=True, slots=True)
class Case:
    """One candidate. ``node`` is where the fault is, ``touched`` every node that it added or changed."""

    stem: str
    architecture: str
    form: str
    fault: str
    path: Path
    node: str
    touched: tuple[str, ...]
    effect: Effect

    @property
    def faithful(self) -> bool:
        """Whether the edit is meant to change nothing."""
        return self.fault.startswith("no fault")


@dataclass(frozen=True, slots=True)
class Ground:
    """What the correct graph and module of a subject give on the benchmark's own inputs."""

    inputs: Sequence[Mapping[str, np.ndarray]]
    graph: Sequence[list[np.ndarray]]
    module: Sequence[list[np.ndarray]]
    graph_noise: Sequence[Sequence[float]]
    module_noise: Sequence[Sequence[float]]


def ground(subject: Subject, seed: int) -> Ground:
    """Evaluate the correct graph and the module it came from, in float64 and fp32.

    Raises: RuntimeError where the two differ in float64 by more than folded weights do: the graph is then not correct.
    """
    inputs = effective.feeds(subject.description.inputs, effective.SEED + seed)
    graph = effective.run_float64(subject.graph, inputs)
    module = effective.run_module(subject.module, subject.input_names, inputs, double=True)
    module32 = effective.run_module(subject.module, subject.input_names, inputs, double=False)
    graph_noise = effective.noise_of(graph, effective.run_fp32(subject.graph, inputs))
    apart = effective.compare(module, graph, graph_noise)
    if apart.size is None or apart.what or apart.size > FOLDED:
        raise RuntimeError(f"{subject.name}: the converted graph is not the module in float64: {apart}")
    return Ground(inputs, graph, module, graph_noise, effective.noise_of(module, module32))


def onnx_cases(
    subject: Subject, base: Ground, folder: Path, classes: Mapping[str, Fault], draws: int, seed: int
) -> Iterator[Case]:
    """The cases of every class that the graph has a place for, up to ``draws`` different ones each."""
    seen: set[str] = set()
    for name, fault in classes.items():
        for draw in range(1 if name in faults_structure.FAITHFUL else draws):
            edited = _edited(subject, base, fault, random.Random(f"{seed} {subject.name} {name} {draw}"))
            if edited is None:
                break
            graph, node, effect = edited
            content = graph.model.SerializeToString()
            digest = hashlib.sha256(content).hexdigest()
            if digest in seen:
                continue
            seen.add(digest)
            stem = f"{subject.name}_{_word(name)}_{draw}"
            path = folder / f"{stem}.onnx"
            path.write_bytes(content)
            yield Case(stem, subject.name, "onnx", name, path, node, _touched(subject.graph, graph.model, node), effect)


def _edited(
    subject: Subject, base: Ground, fault: Fault, randomness: random.Random
) -> tuple[Graph, str, Effect] | None:
    """An edit that leaves a valid graph which runs; ``None`` where there is none."""
    import onnx

    for _ in range(ATTEMPTS):
        graph = Graph(subject.graph)
        try:
            node = fault.inject(graph, randomness)
        except NoSite:
            continue
        onnx.checker.check_model(graph.model)
        try:
            effective.run_fp32(graph.model, base.inputs[:1])
            outputs = effective.run_float64(graph.model, base.inputs)
        except Exception:  # noqa: BLE001 - two runtimes, and each raises what it likes on shapes that do not fit
            continue
        return graph, node, effective.compare(base.graph, outputs, base.graph_noise)
    return None


def _touched(before: onnx.ModelProto, after: onnx.ModelProto, node: str) -> tuple[str, ...]:
    if not node:
        return ()
    old = {n.name for n in before.graph.node}
    return (node, *[n.name for n in after.graph.node if n.name not in old])


def torch_cases(
    subject: Subject, base: Ground, folder: Path, classes: Mapping[str, Any], draws: int, seed: int
) -> Iterator[Case]:
    """The same for TorchScript: modules are edited, traced or written into the traced file, and read back once."""
    from benchmarks.verdict import networks

    seen: set[tuple[str, float | None]] = set()
    for name, kind in classes.items():
        for draw in range(1 if name in faults_torch.FAITHFUL else draws):
            module = networks.build(subject.name)[0]
            try:
                node = kind.edit(module, random.Random(f"{seed} {subject.name} {name} {draw}"))
                outputs = effective.run_module(module, subject.input_names, base.inputs, double=True)
            except (NoSite, RuntimeError):  # RuntimeError: torch on shapes that do not fit
                break
            effect = effective.compare(base.module, outputs, base.module_noise)
            if (node, effect.relative) in seen:
                continue
            seen.add((node, effect.relative))
            stem = f"{subject.name}_ts_{_word(name)}_{draw}"
            path = folder / f"{stem}.pt"
            faults_torch.write(subject, kind, module, path)
            _read_back(subject, base, path, outputs, random_by_nature=name == "dropout left on")
            yield Case(stem, subject.name, "torchscript", name, path, node, (node,) if node else (), effect)


def _read_back(
    subject: Subject, base: Ground, path: Path, expected: Sequence[list[np.ndarray]], *, random_by_nature: bool
) -> None:
    """Make sure that the file computes what was evaluated; raises RuntimeError."""
    import warnings

    import torch

    if random_by_nature:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.jit.load(str(path))
    got = effective.run_module(loaded, subject.input_names, base.inputs, double=False)
    for outputs, wanted in zip(got, expected, strict=True):
        for y, t in zip(outputs, wanted, strict=True):
            scale = float(abs(t).max())
            if t.dtype.kind == "f" and float(abs(y - t).max()) > SAME_FILE * scale:
                raise RuntimeError(f"{path.name} does not compute what the edited module does")


def _word(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name).split())
