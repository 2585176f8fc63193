"""What an ONNX operator's specification says of the element types of its inputs and outputs.

Types are written as the specifications do: ``tensor(float16)``. ``None`` is: not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

FLOAT, HALF = "tensor(float)", "tensor(float16)"
FLOATS = frozenset({FLOAT, HALF})
# Attributes that name the element type of the output.
_STATED = ("to", "dtype", "output_dtype", "output_datatype")
_VALUES = {"value_float": FLOAT, "value_floats": FLOAT, "value_int": "tensor(int64)", "value_ints": "tensor(int64)"}
# Without the attribute they make float32.
_MAKE_FLOAT = frozenset({"ConstantOfShape", "RandomNormal", "RandomUniform"})
# Without the attribute they make what they are given.
_MAKE_SAME = frozenset({"RandomNormalLike", "RandomUniformLike", "EyeLike", "Bernoulli"})


def named(element_type: int) -> str | None:
    """``tensor(float)`` for ``TensorProto.FLOAT``; ``None`` for a number that is no element type."""
    from onnx import TensorProto

    known = TensorProto.DataType.values()
    return f"tensor({TensorProto.DataType.Name(element_type).lower()})" if element_type in known[1:] else None


def of_value(value: onnx.ValueInfoProto) -> str | None:
    """The type that an input or output states, where it is a tensor."""
    tensor = value.type.WhichOneof("value") == "tensor_type"
    return named(value.type.tensor_type.elem_type) if tensor else None


def state(value: onnx.ValueInfoProto, kind: str) -> None:
    """Let an input or output state a tensor type; its shape stays."""
    from onnx import TensorProto

    value.type.tensor_type.elem_type = TensorProto.DataType.Value(kind[len("tensor(") : -1].upper())


class Operators:
    """The specifications of a model's operators, at the versions that it imports."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Remember the versions."""
        self._opsets = {entry.domain or "": entry.version for entry in model.opset_import}
        self._known: dict[tuple[str, str], Any] = {}

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        own: int = self._opsets.get("", self._opsets.get("ai.onnx", 1))
        return own

    def schema(self, node: onnx.NodeProto) -> Any:
        """What ONNX specifies of the operator; ``None`` for one of another domain."""
        from onnx import defs

        domain = "" if node.domain == "ai.onnx" else node.domain
        key = (domain, node.op_type)
        if key not in self._known:
            version = self.opset if not domain else self._opsets.get(domain, 1)
            try:
                self._known[key] = defs.get_schema(node.op_type, version, domain)
            except defs.SchemaError:
                self._known[key] = None
        return self._known[key]


def groups(node: onnx.NodeProto, schema: Any) -> dict[str, list[int]]:
    """The positions of the inputs that must be of one type, by the type or the variable that stands for it."""
    found: dict[str, list[int]] = {}
    for position, name in enumerate(node.input):
        formal = _formal(schema.inputs, position)
        if name and formal is not None and formal.is_homogeneous:
            found.setdefault(formal.type_str, []).append(position)
    return found


def allowed(schema: Any, variable: str) -> frozenset[str]:
    """The types that a variable may stand for; of a type itself, that type."""
    if "(" in variable:
        return frozenset({variable})
    return frozenset(t for c in schema.type_constraints if c.type_param_str == variable for t in c.allowed_type_strs)


def outputs(node: onnx.NodeProto, schema: Any, given: Sequence[str | None]) -> list[str | None]:
    """The types of a node's outputs, from those of its inputs."""
    known = {v: [t for i in positions if (t := given[i])] for v, positions in groups(node, schema).items()}
    bound = {variable: kinds[0] for variable, kinds in known.items() if kinds}
    return [_output(node, schema, position, bound, given) for position in range(len(node.output))]


def _output(
    node: onnx.NodeProto, schema: Any, position: int, bound: Mapping[str, str], given: Sequence[str | None]
) -> str | None:
    formal = _formal(schema.outputs, position)
    if formal is None or not formal.is_homogeneous:
        return None
    if formal.type_str in bound and node.op_type not in _MAKE_SAME:
        return bound[formal.type_str]
    may_be = allowed(schema, formal.type_str)
    if len(may_be) == 1:
        return next(iter(may_be))
    stated = _stated(node)
    if stated is None and node.op_type in _MAKE_FLOAT:
        stated = FLOAT
    elif stated is None and node.op_type in _MAKE_SAME:
        stated = given[0]
    return stated if stated in may_be else None  # of a sequence it is the type of what is in it


def _stated(node: onnx.NodeProto) -> str | None:
    for attribute in node.attribute:
        if attribute.name in _STATED and attribute.i:
            return named(attribute.i)
        if attribute.name == "value" and attribute.HasField("t"):
            return named(attribute.t.data_type)
        if attribute.name in _VALUES:
            return _VALUES[attribute.name]
    return None


def _formal(parameters: Sequence[Any], position: int) -> Any:
    """The specification of an input or output; the last one counts for all that follow where there may be more."""
    if position < len(parameters):
        return parameters[position]
    last = parameters[-1] if parameters else None
    return last if last is not None and str(last.option).endswith("Variadic") else None
