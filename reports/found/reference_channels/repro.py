"""Does onnx.reference still mix channels in GlobalMaxPool of three dimensions and in grouped ConvTranspose?

``python repro.py``. GlobalMaxPool is the maximum over all places of each channel (ONNX operators, GlobalMaxPool-1); a
ConvTranspose in groups is one ConvTranspose per group of input channels, side by side (ConvTranspose-11). Exit status
1: the defect exists. 0: it does not any longer. 2: onnx is not installed.
"""

from __future__ import annotations

import sys

import numpy as np


def main() -> int:
    """Evaluate both operators, and the same by hand."""
    try:
        import onnx
        from onnx.reference import ReferenceEvaluator
    except ImportError:
        print("onnx is not installed: pip install onnx==1.23.2")
        return 2

    def run(text: str, **feed: np.ndarray) -> np.ndarray:
        head = '<ir_version: 8, opset_import: ["": 18]> '
        return np.asarray(ReferenceEvaluator(onnx.parser.parse_model(head + text)).run(None, feed)[0])

    draw = np.random.default_rng(0)
    x = draw.normal(size=(2, 3, 5)).astype(np.float32)
    pooled = run("pool (float[N, 3, L] x) => (float[N, 3, 1] y) { y = GlobalMaxPool(x) }", x=x)
    print(f"onnx {onnx.__version__}, GlobalMaxPool of {x.shape}: {pooled.shape} instead of (2, 3, 1)")
    wrong = pooled.shape != (2, 3, 1)

    x, w = (draw.normal(size=shape).astype(np.float32) for shape in ((1, 4, 3, 3), (4, 3, 2, 2)))
    spread = "spread (float[N, 4, H, W] x, float[4, 3, 2, 2] w) => (float[N, 6, h, k] y) {{ y = ConvTranspose<{}>(x, w) }}"
    one = spread.format("group = 1").replace("float[N, 4,", "float[N, 2,").replace("float[4, 3,", "float[2, 3,")
    right = np.concatenate([run(one, x=x[:, i : i + 2], w=w[i : i + 2]) for i in (0, 2)], 1)
    try:
        got = run(spread.format("group = 2"), x=x, w=w)
        off = float(np.abs(got - right).max()) if got.shape == right.shape else np.inf
        print(f"ConvTranspose in two groups: largest error {off:.2g} beside two of one group")
        wrong |= off > 1e-4
    except Exception as error:  # whatever it raises, two convolutions of one group do not
        print(f"ConvTranspose in two groups raises {type(error).__name__}: {error}")
        wrong = True
    print("The bug exists." if wrong else "The bug does not exist here.")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
