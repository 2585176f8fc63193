"""The contract of a model's interface: what must survive a conversion besides the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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
) -> list[str]:
    """Every way in which what the runtime states differs from the source's interface, as sentences.

    What the runtime or the format does not state (a name "", a shape ``None``, no specification
    at all) cannot differ; it is held by the outputs themselves in the parity check.
    """
    return [
        *_side("input", expected_inputs, stated_inputs, form.named_inputs, precision),
        *_side("output", expected_outputs, stated_outputs, form.named_outputs, precision),
    ]


def _side(
    what: str, expected: Sequence[TensorSpec], stated: Sequence[TensorSpec], named: bool, precision: str
) -> list[str]:
    if not stated:
        return []
    if len(expected) != len(stated):
        names = ", ".join(s.name or "?" for s in stated)
        return [f"there are {len(stated)} {what}s ({names}) where the source has {len(expected)}"]
    found = []
    for index, (source, got) in enumerate(zip(expected, stated, strict=True)):
        if named and got.name and source.name and got.name != source.name:
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
