"""Does onnx.reference still mix a batch's own statistics into BatchNormalization of opset 9 to 13?

``python repro.py``. The operator of these opsets takes the mean and variance that it is given (ONNX operators,
BatchNormalization-9): the output is (x - mean) / sqrt(var + 1e-5) * scale + bias. onnx.reference adds a tenth of the
batch's own (1 - momentum). Exit status 1: the defect exists. 0: it does not any longer. 2: onnx is not installed.
"""

from __future__ import annotations

import sys

import numpy as np


def main() -> int:
    """Evaluate one BatchNormalization at three opsets and by hand."""
    try:
        import onnx
        from onnx.reference import ReferenceEvaluator
    except ImportError:
        print("onnx is not installed: pip install onnx==1.23.2")
        return 2
    draw = np.random.default_rng(0)
    x = draw.normal(size=(2, 3, 4)).astype(np.float32)
    scale, bias, mean, var = (v.astype(np.float32) for v in (
        draw.uniform(0.5, 2, 3), draw.normal(size=3), draw.normal(size=3), draw.uniform(0.5, 2, 3)
    ))  # fmt: skip
    one = (slice(None), None)
    right = (x - mean[one]) / np.sqrt(var[one] + 1e-5) * scale[one] + bias[one]
    wrong = False
    for opset in (9, 13, 14):
        text = f"""<ir_version: 8, opset_import: ["": {opset}]>
        bn (float[N, 3, 4] x, float[3] scale, float[3] bias, float[3] mean, float[3] var) => (float[N, 3, 4] y)
        {{ y = BatchNormalization(x, scale, bias, mean, var) }}"""
        run = ReferenceEvaluator(onnx.parser.parse_model(text)).run
        error = np.abs(run(None, {"x": x, "scale": scale, "bias": bias, "mean": mean, "var": var})[0] - right).max()
        wrong |= bool(error > 1e-4)
        print(f"onnx {onnx.__version__}, opset {opset}: largest error {error:.2g}")
    print("The bug exists." if wrong else "The bug does not exist here.")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
