"""An OpenVINO graph that rounds as it runs.

OpenVINO removes a conversion to f16 and back, so values are split as Veltkamp does: three
operators that leave the leading bits, bit-equal to rounding to nearest even on the CPU plugin.
The exponent stays float32's: what overflows in fp16 does not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare.rounding import DROPPED_BITS
from pytest_modelformats.schema import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable

# The inputs that are multiplied, by operator.
PRODUCTS = {
    "MatMul": (0, 1),
    "Convolution": (0, 1),
    "GroupConvolution": (0, 1),
    "ConvolutionBackpropData": (0, 1),
    "GroupConvolutionBackpropData": (0, 1),
    "ScaledDotProductAttention": (0, 1, 2),
    "LSTMSequence": (0, 1, 4, 5),
    "GRUSequence": (0, 1, 3, 4),
    "RNNSequence": (0, 1, 3, 4),
    "LSTMCell": (0, 1, 3, 4),
    "GRUCell": (0, 1, 2, 3),
    "RNNCell": (0, 1, 2, 3),
}
_NO_RESULT = frozenset({"Parameter", "Constant", "Result"})


def insert_rounding(model: Any, precision: str, serves_a_shape: Callable[[Any], bool]) -> None:
    """Round, in place, every operator's f32 result, or for tf32 the operands of products.

    Weights and inputs are left as they are: fp16 and bf16 ask for them to be rounded before.
    """
    for operator in model.get_ordered_ops():
        kind = operator.get_type_name()
        if PRECISIONS[precision].operands_only:
            for index in PRODUCTS.get(kind, ()):
                port = operator.input(index)
                if _is_single(port):
                    port.replace_source_output(_split(port.get_source_output(), precision))
        elif kind not in _NO_RESULT:
            for output in operator.outputs():
                targets = [t for t in output.get_target_inputs() if not serves_a_shape(t.get_node())]
                if targets and _is_single(output):
                    rounded = _split(output, precision)
                    for target in targets:
                        target.replace_source_output(rounded)
    model.validate_nodes_and_infer_types()


def _is_single(port: Any) -> bool:
    return str(port.get_element_type().get_type_name()) == "f32"


def _split(value: Any, precision: str) -> Any:
    """The value's leading bits.

    Source: T. J. Dekker, A floating-point technique for extending the available precision, 1971, section 5.
    """
    import numpy as np
    from openvino import opset13

    # fp16 keeps as many bits as tf32.
    dropped = DROPPED_BITS.get(precision, DROPPED_BITS["tf32"])
    scaled = opset13.multiply(value, opset13.constant(np.array(2.0**dropped + 1, np.float32)))
    return opset13.subtract(scaled, opset13.subtract(scaled, value)).output(0)
