"""The first operator of an ONNX graph that computes something else than a reference graph does.

Both are evaluated in float64, so a difference is the graph's own and no rounding: what is
left before the fault is what folding weights in float32 costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare.truths import worst
from pytest_modelformats.systems.onnx.reference import steps as onnx_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import onnx

    from pytest_modelformats.compare.truths import Truths
    from pytest_modelformats.systems.onnx.localise.match import Match, Matched
    from pytest_modelformats.systems.onnx.reference.lazy import LazyModel

# An operator whose inputs are off by this share of what its output is, or more, may only pass an error on.
_PASSED_ON = 0.25
_BEFORE = 6
# An integer tensor of so many elements is kept as it is.
_SIZES = 4096


@dataclass(slots=True)
class Found:
    """A node that computes something else: its place, the errors in units of noise, and in which way it differs.

    ``part`` are the places of the nodes to be looked at together, the last of which makes ``output``.
    """

    index: int
    output: str
    input_error: float
    output_error: float
    part: list[int]
    how: str = ""
    missing: list[str] = field(default_factory=list)


class Comparison:
    """A graph run in float64, each tensor compared with the one of the reference that it should equal."""

    def __init__(
        self, artifact: LazyModel, match: Matched, truths: Truths, limit: float, precision: str = "float64"
    ) -> None:
        """Nothing is run yet; ``precision`` is what the artifact's steps are run in."""
        self.model, self.truths, self.limit = artifact, truths, limit
        self.match = match
        self.steps = onnx_steps.Steps(artifact, precision)
        self.dependent = onnx_steps.dependent(artifact.nodes, artifact.inputs)
        self.places = {name: i for i, node in enumerate(artifact.nodes) for name in node.output if name}
        self.errors: dict[str, float] = {}
        self.equal: dict[str, str] = {}
        # Results that are no floats and have no counterpart: shapes and indices, of which each exporter makes its own.
        self.sizes: dict[str, Any] = {}
        self.compared = 0

    def run(self, feed: Mapping[str, np.ndarray], check: Callable[[int, int], None]) -> Found | None:
        """The first operator that is not explained by its inputs; ``None`` where every output is as it should be."""
        back = {theirs: mine for mine, theirs in self.match.inputs.items()}
        self.steps.feed({back.get(name, name): array for name, array in feed.items()})
        for name in self.model.inputs:
            self.errors[name], self.equal[name] = 0.0, self.match.inputs.get(name, name)
        for index, node in enumerate(self.model.nodes):
            check(index, len(self.model.nodes))
            try:
                made = self.steps.step(index)
            except Exception as error:  # noqa: BLE001 - the evaluator raises whatever numpy and its operators raise
                return self._refused(index, node, error)
            found = self._look(index, node, made)
            if found is not None:
                return found
            self.steps.release(index)
        return self._reordered()

    def _refused(self, index: int, node: onnx.NodeProto, error: Exception) -> Found:
        """The operator cannot be run on what reaches it: its own fault, or that of what shaped its inputs."""
        culprit = self._culprit(index, node)
        how = culprit.how or f"it cannot be evaluated ({type(error).__name__})"
        return Found(culprit.index, culprit.output, culprit.input_error, math.inf, culprit.part, how, culprit.missing)

    def _look(self, index: int, node: onnx.NodeProto, made: Mapping[str, Any]) -> Found | None:
        """Compare what a node made; a result nobody has a counterpart of is carried on as unknown."""
        outputs = [name for name in made if name in self.dependent and hasattr(made[name], "dtype")]
        for name in outputs:
            theirs = self.match.tensors.get(name)
            if theirs is None or not self._comparable(name, theirs, made[name]):
                alike = self.truths.like(made[name], self.limit)
                if made[name].dtype.kind != "f" and made[name].size <= _SIZES:
                    self.sizes[name] = made[name]
                elif alike:
                    self.errors[name], self.equal[name] = 0.0, alike
                continue
            self.compared += 1
            self.errors[name] = self.truths.distance(theirs, made[name]).ratio
            if self.errors[name] <= self.limit:
                self.equal[name] = theirs
        wrong = [name for name in outputs if self.errors.get(name, 0.0) > self.limit]
        if not wrong or self._explained(index, node, wrong):
            return None
        return self._culprit(index, node)

    def _comparable(self, name: str, theirs: str, value: Any) -> bool:
        """Whether a tensor is to equal one of the reference: the outputs are, others where names are trusted."""
        if theirs not in self.truths or name in self.match.outputs:
            return theirs in self.truths
        # What a Cast takes may be of another kind than what it gives.
        kind = name == theirs or (value.dtype.kind == "f") == self.truths.known[theirs].floating
        return self.match.named and kind

    def _before(self, node: onnx.NodeProto) -> float:
        return max((self.errors.get(name, 0.0) for name in onnx_steps.takes(node)), default=0.0)

    def _explained(self, index: int, node: onnx.NodeProto, wrong: list[str]) -> bool:
        """Whether the node is right on the reference's inputs, and only passes on an error of its own inputs."""
        taken = self._taken(index)
        largest = max(self.errors[name] for name in wrong)
        if self._before(node) < _PASSED_ON * min(largest, self.limit) or not all(n in self.equal for n in taken):
            return False
        good = {n: self.truths.load(self.equal[n]) for n in taken}
        made = self.steps.run(index, {**self.steps.values, **good})
        alone = worst([self.truths.distance(self.match.tensors[n], made[n]) for n in wrong])
        return alone <= self.limit / 2

    def _culprit(self, index: int, node: onnx.NodeProto) -> Found:
        """The node at fault: this one, or the first of those before it that the reference does not have."""
        part = self._unknown_before(index)
        how, missing = self.match.difference(node), [n.name or n.output[0] for n in self.match.missing(node)]
        first = index
        if len(part) > 1 and not how:
            first, how = self._suspect(part)
        if not how and not missing:
            first, how, missing = self._miswired(first)
            part = sorted({first, *part})
        if missing and not how:
            how = f"{' and '.join(missing)} of the reference is left out before it"
        named = self.model.nodes[first]
        output = next((n for n in named.output if n), "")
        errors = [self.errors[n] for n in node.output if n in self.errors]
        inputs = [n for place in part for n in onnx_steps.takes(self.model.nodes[place]) if n in self.equal]
        before = max((self.errors.get(n, 0.0) for n in inputs), default=0.0)
        return Found(
            first, output, before, max(errors, default=math.inf), [p for p in part if p >= first], how, missing
        )

    def _suspect(self, part: list[int]) -> tuple[int, str]:
        """Of several nodes that nothing is known between: the one that differs, else the first; and in which way."""
        suspects = part
        if not self.match.named:  # what follows a fault is unknown too: only what stands on known tensors is suspect
            known = [p for p in part if all(n in self.equal or n in self.sizes for n in self._taken(p))]
            suspects = known or part
        for place in suspects:
            how = self.match.difference(self.model.nodes[place])
            if how:
                return place, how
        first = suspects[0]
        return first, "" if self.match.twin(self.model.nodes[first]) else self.match.alien

    def _taken(self, place: int) -> list[str]:
        return [n for n in onnx_steps.takes(self.model.nodes[place]) if n in self.dependent]

    def _unknown_before(self, index: int) -> list[int]:
        """The node and those before it, back to the tensors that are known to be right."""
        found, waiting = {index}, [index]
        while waiting:
            for name in onnx_steps.takes(self.model.nodes[waiting.pop()]):
                place = self.places.get(name)
                known = name in self.equal or name in self.sizes or name not in self.dependent
                if place is not None and not known and place not in found:
                    found.add(place)
                    waiting.append(place)
        return sorted(found)

    def _miswired(self, place: int) -> tuple[int, str, list[str]]:
        """Where the same operator takes another tensor than its twin does: what is at fault, how, what is left out."""
        node = self.model.nodes[place]
        mine = {self.equal[n]: n for n in self._taken(place) if n in self.equal}
        theirs = [name for name in self.match.wiring(node) if name in self.truths]
        extra = [name for name in mine if name not in theirs]
        left = [n for n in theirs if n not in mine and not any(self._same(n, other) for other in extra)]
        if not extra or not left:
            return place, "", []
        taken = mine[extra[0]]
        origin = self.places.get(taken, -1)
        earlier = [n for n, known in self.equal.items() if known == extra[0] and self.places.get(n, -1) < origin]
        if earlier:  # a node that passes on what it takes, where another result is due
            return origin, f"it gives '{extra[0]}' of the reference, where '{left[0]}' is due", []
        return place, f"'{left[0]}' of the reference is left out before it", [left[0]]

    def _same(self, one: str, other: str) -> bool:
        return self.truths.distance(one, self.truths.load(other)).ratio <= self.limit

    def _reordered(self) -> Found | None:
        """Every tensor is right; are they handed out in the reference's order?"""
        for mine, theirs in self.match.outputs.items():
            if mine in self.places and self.equal.get(mine, theirs) != theirs:
                how = f"output '{mine}' stands where the reference has '{theirs}'"
                return Found(self.places[mine], mine, 0.0, math.inf, [self.places[mine]], how)
        return None

    def path(self, index: int) -> list[str]:
        """The nodes that lead to a node, the nearest last: those that the error did not come from."""
        found: list[str] = []
        node = self.model.nodes[index]
        while len(found) < _BEFORE:
            place = next((self.places[n] for n in node.input if n in self.places and n in self.dependent), None)
            if place is None:
                break
            node = self.model.nodes[place]
            found.append(title(node))
        return found[::-1]


def first_difference(artifact: LazyModel, match: Match) -> Found | None:
    """The first node that is another one than the reference's by what is written there, where nothing can be run."""
    for index, node in enumerate(artifact.nodes):
        how, missing = match.difference(node), [title(n) for n in match.missing(node)]
        if missing and not how:
            how = f"{' and '.join(missing)} of the reference is left out before it"
        if how:
            return Found(index, next((n for n in node.output if n), ""), math.inf, math.inf, [index], how, missing)
    return None


def title(node: onnx.NodeProto) -> str:
    """The name of a node, or of what it makes where it has none."""
    return str(node.name or next((n for n in node.output if n), node.op_type))
