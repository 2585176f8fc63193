"""The contract of a model's interface: what must survive a conversion besides the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_modelformats.schema import Format, TensorSpec

# The float dtype that an artifact of a narrow precision may hand out or take in by itself.
_OWN_DTYPE = {"fp16": "float16", "bf16": "bfloat16"}


def differences(
    expected_inputs: Sequence[TensorSpec],
    expected_outputs: Sequence[TensorSpec],
    stated_inputs: Sequence[TensorSpec],
    stated_outputs: Sequence[TensorSpec],
    form: Format,
    precision: str,
    invented: Collection[str] = (),
) -> list[str]:
    """Every way in which what the runtime states differs from the source's interface, as sentences.

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


def _side(
    what: str,
    expected: Sequence[TensorSpec],
    stated: Sequence[TensorSpec],
    named: bool,
    precision: str,
    invented: Collection[str] = (),
) -> list[str]:
    if not stated:
        return []
    if len(expected) != len(stated):
        names = ", ".join(s.name or "?" for s in stated)
        return [f"there are {len(stated)} {what}s ({names}) where the source has {len(expected)}"]
    found = []
    free = by_position(expected, stated, invented)
    for index, (source, got) in enumerate(zip(expected, stated, strict=True)):
        if named and got.name and source.name and got.name not in {source.name, *free}:
            found.append(f"{what} {index} is called '{got.name}' where the source says '{source.name}'")
        if got.dtype and source.dtype != got.dtype and not (source.is_float and got.dtype == _OWN_DTYPE.get(precision)):
            found.append(f"{what} '{source.name}' is {got.dtype} where the source has {source.dtype}")
        found.extend(_shape(what, source, got))
    return found


def _shape(what: str, source: TensorSpec, got: TensorSpec) -> list[str]:
    if source.shape is None or got.shape is None:
        return []
    if len(source.shape) != len(got.shape):
        return [f"{what} '{source.name}' has rank {len(got.shape)} where the source has {len(source.shape)}"]
    found = []
    for axis, (wanted, has) in enumerate(zip(source.shape, got.shape, strict=True)):
        if isinstance(wanted, str) and isinstance(has, int):
            found.append(f"dimension {axis} of {what} '{source.name}' was dynamic ({wanted}) and is now fixed at {has}")
        elif isinstance(wanted, int) and isinstance(has, int) and wanted != has:
            found.append(f"dimension {axis} of {what} '{source.name}' is {has} where the source has {wanted}")
    return found
