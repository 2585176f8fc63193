"""Does torch.onnx.export still write float32 weights for a bfloat16 Conv and BatchNorm? ``python repro.py``.

Exports anew with the PyTorch of this environment and looks at the types of the weights. Exit status 1: the defect
exists. 0: it does not any longer. 2: torch, onnx or onnxscript is not installed.
"""

from __future__ import annotations

import sys
import warnings


def main() -> int:
    """Export Conv and BatchNorm in bfloat16, and Conv alone beside it."""
    try:
        import onnx
        import onnxscript  # noqa: F401 - the exporter needs it
        import torch
    except ImportError:
        print("not installed: pip install torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2")
        return 2
    warnings.simplefilter("ignore")
    nn = torch.nn
    wrong = False
    for name, after in (("Conv", nn.Identity()), ("Conv and BatchNorm", nn.BatchNorm2d(4))):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), after).eval().bfloat16()
        x = torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16)
        graph = torch.onnx.export(net, (x,), dynamo=True, opset_version=22, verbose=False).model_proto.graph
        types = {i.name: onnx.TensorProto.DataType.Name(i.data_type) for i in graph.initializer}
        wrong |= "FLOAT" in types.values()
        print(f"torch {torch.__version__}, {name}: {', '.join(f'{n} {t}' for n, t in sorted(types.items()))}")
    print("The bug exists." if wrong else "The bug does not exist here.")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
