"""The reference of an OpenVINO model: its fp32 run, fp32's noise by perturbing, the others' by rounding in the graph.

OpenVINO's CPU plugin has no float64, so the fp32 run is taken as truth (design, section 5).
Noise over that of PyTorch on 27 random networks of nine families, lowest, median and highest:
fp32 0.60 1.20 1.70, tf32 0.84 1.00 1.36, fp16 0.61 1.02 1.30, bf16 0.76 1.07 2.03 (perturbing
gave 1.38 1.81 4.39 at tf32, 0.57 0.81 1.73 at fp16 and 0.59 0.85 1.69 at bf16).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare import rounding
from pytest_modelformats.errors import RunError, Unsupported
from pytest_modelformats.schema import PRECISIONS
from pytest_modelformats.systems.openvino import ir as openvino_ir
from pytest_modelformats.systems.openvino import rounding as openvino_rounding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from pytest_modelformats.schema import Source
    from pytest_modelformats.schema.contract import Feed

    Outputs = list[list[np.ndarray]]

SEED = 20261123
# Their floating constants say how large something is: a perturbed one would change shapes, not values.
SHAPE_OPERATORS = frozenset({"Interpolate", "Range", "OneHot", "NonMaxSuppression", "Pad"})
SETTINGS = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",
}


def evaluate_openvino(source: Source, feeds: Sequence[Feed], precision: str) -> tuple[Outputs, str]:
    """The outputs per feed at ``float64`` or a precision's name, and one line that says by which method."""
    import numpy as np

    path = Path(source.location)
    model = openvino_ir.read(path)
    if precision == "float64":
        method = "estimated: fp32 run taken as truth (OpenVINO's CPU plugin has no float64)"
        return _run(model, path, feeds), method
    change = rounding.weight_rounding(precision)
    if change is not None and "~" in precision:
        msg = "whatever could be folded into a constant of this file has been, so there is one rounding of it"
        raise Unsupported(msg)
    if change is not None:
        _replace_constants(model, change)
        return _run(model, path, feeds), f"{precision}: constants rounded to fp16, run in fp32"
    if precision in ("tf32", "fp16", "bf16"):
        try:
            return _rounded(model, path, feeds, precision)
        except RunError:
            model = openvino_ir.read(path)
    generator = np.random.default_rng(SEED)
    own = _run(model, path, feeds)
    _replace_constants(model, lambda weight: rounding.perturbed(weight, precision, generator), exponents=False)
    inputs = [rounding.perturbed_feed(feed, precision, generator) for feed in feeds]
    outputs = _run(model, path, inputs)
    if not rounding.keeps_numbers(own, outputs):
        msg = (
            "there is no float64 evaluation (OpenVINO's CPU plugin has none), and the estimate in its place failed: "
            f"{rounding.NO_ESTIMATE.format(precision=precision)}"
        )
        raise Unsupported(msg)
    return outputs, f"estimated: inputs and constants perturbed by one rounding unit of {precision}, run in fp32"


def _rounded(model: Any, path: Path, feeds: Sequence[Feed], precision: str) -> tuple[Outputs, str]:
    """By nodes that round, in the graph itself; raises RunError where OpenVINO does not run it."""
    asked = PRECISIONS[precision]
    inputs: list[Feed] = list(feeds)
    what = "operands of products and convolutions"
    if not asked.operands_only:
        _replace_constants(model, lambda weight: rounding.saturated(weight, precision))
        inputs = [
            {n: rounding.rounded(a, precision) if a.dtype.kind == "f" else a for n, a in f.items()} for f in feeds
        ]
        what = "constants and every operator's result"
    try:
        openvino_rounding.insert_rounding(model, precision, _serves_a_shape)
    except RuntimeError as error:
        msg = f"OpenVINO refuses rounding nodes in '{path.name}': {openvino_ir.reason(error)}"
        raise RunError(msg) from error
    outputs = _run(model, path, inputs)
    return outputs, f"{precision}: {what} rounded to {asked.mantissa_bits} mantissa bits by nodes added to the graph"


def _replace_constants(model: Any, change: Callable[[np.ndarray], np.ndarray], *, exponents: bool = True) -> None:
    """Replace every floating constant that is a value, not a size; half-precision ones become fp32.

    ``exponents``: those of Power too. One that is moved has no real power of a negative number.
    """
    import numpy as np
    import openvino

    halves = {"f16", "bf16"}
    for operator in model.get_ordered_ops():
        kind = operator.get_element_type().get_type_name() if operator.get_output_size() == 1 else ""
        if operator.get_type_name() != "Constant" or kind not in halves | {"f32"}:
            continue
        targets = list(operator.output(0).get_target_inputs())
        if any(_serves_a_shape(target.get_node()) for target in targets):
            continue
        if not exponents and any(_is_exponent(target) for target in targets):
            continue
        array = operator.get_data(dtype=np.float32)
        node = openvino.op.Constant(change(array)).output(0)
        if kind in halves and not all(t.get_node().get_type_name() == "Convert" for t in targets):
            node = openvino.opset13.convert(node, kind).output(0)
        for target in targets:
            target.replace_source_output(node)
    model.validate_nodes_and_infer_types()


def _is_exponent(port: Any) -> bool:
    """Whether the input, or what the node it belongs to converts for, is the exponent of a Power."""
    node = port.get_node()
    if node.get_type_name() == "Convert":
        return any(_is_exponent(target) for target in node.output(0).get_target_inputs())
    return bool(node.get_type_name() == "Power" and port.get_index() == 1)


def _serves_a_shape(node: Any) -> bool:
    """Whether the node, or what it converts for, takes sizes."""
    if node.get_type_name() != "Convert":
        return node.get_type_name() in SHAPE_OPERATORS
    return any(t.get_node().get_type_name() in SHAPE_OPERATORS for t in node.output(0).get_target_inputs())


def _run(model: Any, path: Path, feeds: Sequence[Feed]) -> Outputs:
    import openvino

    try:
        compiled = openvino.Core().compile_model(model, "CPU", SETTINGS)
        outputs = []
        for feed in feeds:
            request = compiled.create_infer_request()
            request.infer(dict(feed), share_inputs=False)
            outputs.append([request.get_output_tensor(i).data.copy() for i in range(len(compiled.outputs))])
    except RuntimeError as error:
        msg = f"OpenVINO cannot run the source '{path.name}': {openvino_ir.reason(error)}"
        raise RunError(msg) from error
    return outputs
