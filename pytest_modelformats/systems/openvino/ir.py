"""Reading an OpenVINO IR and what it says of its inputs and outputs; the reason inside OpenVINO's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import SourceError
from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.source import stated_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

DTYPES = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "u64": "uint64",
    "u32": "uint32",
    "u16": "uint16",
    "u8": "uint8",
    "boolean": "bool",
}
# The line before what is said of one operator, and the lines between that only say where.
_OF_AN_OPERATOR = " with a message:"
_PLACE = ("[", "While validating")
_FRAME = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")


def specs(ports: Sequence[Any], names: Sequence[str] = ()) -> tuple[TensorSpec, ...]:
    """The inputs or outputs of a model as specs: name "" where there is none, letters for dynamic dimensions.

    ``names``, one per port, says by which of its names each is called; else by any.
    """
    named = names or [port.get_any_name() if port.get_names() else "" for port in ports]
    return tuple(_spec(port, name) for port, name in zip(ports, named, strict=True))


def _spec(port: Any, name: str) -> TensorSpec:
    kind = port.get_element_type().get_type_name()
    shape = port.get_partial_shape()
    dims = None if shape.rank.is_dynamic else ["" if d.is_dynamic else d.get_length() for d in shape]
    resolved = None if dims is None else stated_inputs.symbolic(dims)
    return TensorSpec(name, DTYPES.get(kind, kind), resolved)


def array(tensor: Any) -> np.ndarray:
    """A copy of a tensor's values; bfloat16, whose bits OpenVINO shows as float16, as float32."""
    import numpy as np

    copied: np.ndarray = tensor.data.copy()
    if tensor.element_type.get_type_name() == "bf16":
        copied = (copied.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return copied


def tensor_of(values: np.ndarray, dtype: str) -> Any:
    """A tensor that owns a copy of the values; bfloat16 from float32 that bfloat16 holds exactly."""
    import numpy as np
    import openvino

    if dtype != "bfloat16":
        return openvino.Tensor(np.asarray(values, order="C"))  # ascontiguousarray makes [1] of a scalar
    tensor = openvino.Tensor(openvino.Type.bf16, list(values.shape))
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32) >> np.uint32(16)
    tensor.data.view(np.uint16)[...] = bits.reshape(values.shape)
    return tensor


def metadata(model: Any) -> dict[str, str]:
    """What exporters write into an IR of what the model takes (``rt_info``, ``model_info``), as text by key."""
    if not model.has_rt_info("model_info"):
        return {}
    held = model.get_rt_info("model_info").value
    return {str(key): str(getattr(one, "value", one)) for key, one in held.items()} if isinstance(held, dict) else {}


def reason(error: BaseException) -> str:
    """The first line of an OpenVINO error that is about the model, not about OpenVINO's source files.

    Where that is the head of a list of operators, it is the first operator and what is said of it.
    """
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_FRAME)]
    if told and told[0].endswith(_OF_AN_OPERATOR):
        operator = told[0].removesuffix(_OF_AN_OPERATOR)
        said = [line for line in told[1:] if not line.startswith(_PLACE) and not line.endswith(_OF_AN_OPERATOR)]
        return f"{operator}: {said[0]}" if said else operator
    return told[0] if told else next((line for line in lines if line), type(error).__name__)


def read(path: Path) -> Any:
    """The model; raises SourceError with OpenVINO's reason."""
    import openvino

    try:
        return openvino.Core().read_model(str(path))
    except RuntimeError as error:
        msg = f"'{path.name}' cannot be read as an OpenVINO IR: {reason(error)}"
        raise SourceError(msg) from error
