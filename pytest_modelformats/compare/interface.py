"""The contract of a model's interface: what must survive a conversion besides the numbers.

Names, order, dtypes and the number of inputs and outputs are what is stated. A shape that is stated is a hint: runtimes
state what they infer, and files declare ranks and sizes that nothing has. What comes out decides (:func:`behaviour`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_modelformats.schema import Format, TensorSpec

# The float dtype that an artifact of a narrow precision may hand out or take in by itself.
_OWN_DTYPE = {"fp16": "float16", "bf16": "bfloat16"}

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which what is stated differs from the source's interface, and a sentence without its full stop.

    ``side`` is "input" or "output" where a shape differs, "" where something does that no run could mend. ``number``
    is the place of the input or output, ``axis`` the dimension that differs, ``None`` where it is their number;
    ``wanted`` and ``has`` are what the source and the runtime state of it.
    """

    text: str
    side: str = ""
    name: str = ""
    number: int = 0
    axis: int | None = None
    wanted: int | str = ""
    has: int | str = ""

    @property
    def label(self) -> str:
        """The input or output, as sentences have it."""
        return f"{self.side} '{self.name}'"


@dataclass(frozen=True, slots=True)
class Trial:
    """One feed: what the source gives for it and what the cell does.

    ``said`` are its sizes in words. ``expected`` is ``None`` where the source cannot be asked, ``got`` where the cell
    raised, which ``refusal`` then says.
    Shapes: ``given`` [input], ``expected`` and ``got`` [output] hold shapes.
    """

    said: str
    given: tuple[Shape, ...]
    expected: tuple[Shape, ...] | None
    got: tuple[Shape, ...] | None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the trials say of differing shapes: those that are ``lost`` and by which ``evidence``, in words.

    ``single`` are those whose dimension had one size in all trials, so that nothing is known of others.
    """

    lost: tuple[Difference, ...] = ()
    evidence: str = ""
    single: tuple[Difference, ...] = ()


def differences(
    expected_inputs: Sequence[TensorSpec],
    expected_outputs: Sequence[TensorSpec],
    stated_inputs: Sequence[TensorSpec],
    stated_outputs: Sequence[TensorSpec],
    form: Format,
    precision: str,
    invented: Collection[str] = (),
) -> list[Difference]:
    """Every way in which what the runtime states differs from the source's interface.

    ``invented`` are names of outputs that the source does not state: where they are no contract (an artifact that was
    not converted here), other names stand for the outputs at their positions.

    What the runtime or the format does not state (a name "", a shape ``None``, no specification
    at all) cannot differ; it is held by the outputs themselves in the parity check.
    """
    return [
        *_side("input", expected_inputs, stated_inputs, form.named_inputs, precision),
        *_side("output", expected_outputs, stated_outputs, form.named_outputs, precision, invented),
    ]


def by_position(outputs: Sequence[TensorSpec], stated: Sequence[TensorSpec], invented: Collection[str]) -> list[str]:
    """The names that an artifact has for outputs which the source does not name; one of the source's own is none."""
    names = {spec.name for spec in outputs}
    pairs = zip(outputs, stated, strict=False)  # another number of them is a difference of its own
    return [got.name for source, got in pairs if source.name in invented and got.name and got.name not in names]


def behaviour(differences: Sequence[Difference], trials: Sequence[Trial]) -> Behaviour:
    """Which of the differing shapes change what comes out.

    A dimension is fixed where the cell refuses a size that the source takes, or gives another shape for it. Where the
    source cannot be asked, a refusal counts against what the cell itself declares of its inputs.
    """
    for trial in trials:
        found = _refused(differences, trial) if trial.got is None else _reshaped(differences, trial)
        if found is not None:
            return found
    return Behaviour(single=tuple(d for d in differences if _is_single(d, trials)))


def _refused(differences: Sequence[Difference], trial: Trial) -> Behaviour | None:
    """The dimensions of the inputs that stand against what was given; where none does, all that differ."""
    against = tuple(d for d in differences if d.side == "input" and not _fits(d, trial.given[d.number]))
    if trial.expected is None:
        return Behaviour(against, f"{trial.said} it raises ({trial.refusal})") if against else None
    return Behaviour(against or tuple(differences), f"{trial.said} it refuses what the source takes ({trial.refusal})")


def _fits(difference: Difference, given: Shape) -> bool:
    return difference.axis is not None and given[difference.axis] == difference.has


def _reshaped(differences: Sequence[Difference], trial: Trial) -> Behaviour | None:
    """The differences of an output that comes out in another shape; where it has none, all that differ."""
    if trial.expected is None or trial.got is None:
        return None
    if len(trial.expected) != len(trial.got):
        counts = f"{len(trial.got)} outputs come out where the source gives {len(trial.expected)}"
        return Behaviour(tuple(differences), f"{trial.said} {counts}")
    for number, (wanted, has) in enumerate(zip(trial.expected, trial.got, strict=True)):
        if wanted != has:
            own = tuple(d for d in differences if d.side == "output" and d.number == number)
            said = f"output {number} comes out as {list(has)} where the source gives {list(wanted)}"
            return Behaviour(own or tuple(differences), f"{trial.said} {said}")
    return None


def _is_single(difference: Difference, trials: Sequence[Trial]) -> bool:
    """Whether the dimension, which may vary in the source, had one size in all trials."""
    number, axis = difference.number, difference.axis
    if axis is None or not isinstance(difference.wanted, str):
        return False
    ran = [t for t in trials if t.got is not None]
    sides = [t.given if difference.side == "input" else t.expected or t.got for t in ran]
    return len({side[number][axis] for side in sides if side is not None and axis < len(side[number])}) < 2  # noqa: PLR2004 - two sizes


def _side(
    what: str,
    expected: Sequence[TensorSpec],
    stated: Sequence[TensorSpec],
    named: bool,
    precision: str,
    invented: Collection[str] = (),
) -> list[Difference]:
    if not stated:
        return []
    if len(expected) != len(stated):
        names = ", ".join(s.name or "?" for s in stated)
        return [Difference(f"there are {len(stated)} {what}s ({names}) where the source has {len(expected)}")]
    found = []
    free = by_position(expected, stated, invented)
    for index, (source, got) in enumerate(zip(expected, stated, strict=True)):
        if named and got.name and source.name and got.name not in {source.name, *free}:
            found.append(Difference(f"{what} {index} is called '{got.name}' where the source says '{source.name}'"))
        if got.dtype and source.dtype != got.dtype and not (source.is_float and got.dtype == _OWN_DTYPE.get(precision)):
            found.append(Difference(f"{what} '{source.name}' is {got.dtype} where the source has {source.dtype}"))
        found.extend(_shape(what, index, source, got))
    return found


def _shape(what: str, number: int, source: TensorSpec, got: TensorSpec) -> list[Difference]:
    if source.shape is None or got.shape is None:
        return []
    if len(source.shape) != len(got.shape):
        text = f"{what} '{source.name}' has rank {len(got.shape)} where the source has {len(source.shape)}"
        return [Difference(text, what, source.name, number)]
    found = []
    for axis, (wanted, has) in enumerate(zip(source.shape, got.shape, strict=True)):
        text = ""
        if isinstance(wanted, str) and isinstance(has, int):
            text = f"dimension {axis} of {what} '{source.name}' was dynamic ({wanted}) and is now fixed at {has}"
        elif isinstance(wanted, int) and isinstance(has, int) and wanted != has:
            text = f"dimension {axis} of {what} '{source.name}' is {has} where the source has {wanted}"
        if text:
            found.append(Difference(text, what, source.name, number, axis, wanted, has))
    return found
