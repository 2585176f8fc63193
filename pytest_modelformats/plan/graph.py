"""The conversion graph: which artifacts can be reached from a source format, and by which chain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema import Converter, Step
from pytest_modelformats.schema.registry import converters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Node = tuple[str, str]
"""(format, precision of the artifact)."""


@dataclass(frozen=True, slots=True)
class Path:
    """The chain that leads to an artifact; ``route`` is "" for the default one."""

    node: Node
    steps: tuple[Step, ...]
    route: str = ""


def _edges(known: Iterable[Converter]) -> dict[Node, list[tuple[Converter, Node]]]:
    edges: dict[Node, list[tuple[Converter, Node]]] = {}
    for converter in known:
        for before, afters in converter.precisions.items():
            for after in afters:
                node = (converter.target, after)
                edges.setdefault((converter.source, before), []).append((converter, node))
    return edges


def shortest(start: Path, known: Iterable[Converter]) -> dict[Node, Path]:
    """The shortest chain to every artifact that can be reached from ``start``.

    Raises: ConfigurationError when two chains of the same length lead to one artifact.
    """
    edges = _edges(known)
    found = {start.node: start}
    frontier = [start]
    while frontier:
        reached: dict[Node, list[Path]] = {}
        for path in frontier:
            for converter, node in edges.get(path.node, ()):
                if node not in found:
                    step = Step(converter.name, node[1])
                    reached.setdefault(node, []).append(Path(node, (*path.steps, step), start.route))
        for node, paths in reached.items():
            if len(paths) > 1:
                chains = " and ".join(" → ".join(s.converter for s in p.steps) for p in paths)
                msg = (
                    f"the conversion to {node[0]} at {node[1]} is ambiguous: {chains} are equally short; "
                    "declare all but one of the converters with default=False"
                )
                raise ConfigurationError(msg)
            found[node] = paths[0]
        frontier = [paths[0] for paths in reached.values()]
    return found


def _alternatives(source_format: str, default: Mapping[Node, Path]) -> list[Path]:
    """Chains that end in another converter than the default chain does, under that converter's route."""
    everything = converters().values()
    own = {c.name for c in everything}
    paths = []
    for converter in everything:
        if converter.target in {converter.source, source_format}:
            continue
        for before, afters in converter.precisions.items():
            base = default.get((converter.source, before))
            for after in afters:
                node = (converter.target, after)
                usual = default.get(node)
                if base is None or (usual is not None and usual.steps[-1].converter == converter.name):
                    continue
                if not _precedes(base, converter.target, own):
                    continue
                paths.append(Path(node, (*base.steps, Step(converter.name, after)), converter.route))
    return paths


def _precedes(base: Path, target: str, own: set[str]) -> bool:
    """Whether a chain can sensibly be continued to ``target``: it has not been there already."""
    known = converters()
    return all(known[s.converter].target != target for s in base.steps if s.converter in own)


@cache
def artifacts(source_format: str, precision: str = "fp32") -> tuple[Path, ...]:
    """Every artifact that can be made of a source, default chains first, then the other routes.

    A source whose numbers are those of another ``precision`` is its own artifact at that one.

    A route's artifact is carried on within its own format (``onnx.legacy`` at fp16 is made
    from ``onnx.legacy`` at fp32), never into another one.
    """
    everything = converters().values()
    default = shortest(Path((source_format, "fp32"), ()), [c for c in everything if c.default])
    default[source_format, precision] = Path((source_format, precision), ())
    found = list(default.values())
    for path in _alternatives(source_format, default):
        inner = [c for c in everything if c.default and c.source == c.target == path.node[0]]
        found.extend(shortest(path, inner).values())
    return tuple(found)
