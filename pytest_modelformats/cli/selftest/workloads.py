"""What ``modelformats selftest`` measures against itself: a few matrix products, in numpy and in a runtime.

Runs in a worker. The model is written with the standard library, so that ONNX Runtime and OpenVINO can be measured
where the package ``onnx`` is not installed.

Source: ``onnx.proto`` for the field numbers, the protobuf encoding specification for the rest.
"""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.schema import TensorSpec
    from pytest_modelformats.schema.contract import SessionJob

WIDTH, LAYERS, ROWS = 128, 4, 32
OPSET, IR_VERSION, FLOAT = 13, 8, 1


class NumpySession:
    """Matrix products and tanh, in numpy."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    statement: Mapping[str, Any] = {}

    def __init__(self) -> None:
        """Draw the weights."""
        import numpy as np

        generator = np.random.default_rng(0)
        self._weights = [generator.normal(size=(WIDTH, WIDTH)).astype(np.float32) / WIDTH for _ in range(LAYERS)]

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run once."""
        import numpy as np

        x = feed["x"]
        for weight in self._weights:
            x = np.tanh(x @ weight)
        return [x]

    def bind(self, feed: Mapping[str, np.ndarray]) -> Callable[[], object]:
        """Hand the input over."""
        return lambda: self.run(feed)

    def close(self) -> None:
        """Let go of the weights."""
        self._weights = []


def open_numpy(job: SessionJob) -> NumpySession:
    """Open the workload that needs no runtime."""
    del job
    return NumpySession()


def open_torch(job: SessionJob) -> Any:
    """Open the workload as a module of PyTorch."""
    import torch

    from pytest_modelformats.systems.torch.session import TorchSession, prepare

    statement = prepare(job)
    torch.manual_seed(0)
    layers = [layer for _ in range(LAYERS) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh())]
    return TorchSession(torch.nn.Sequential(*layers).eval(), job, statement=statement)


def write_model(path: Path) -> None:
    """Write the workload as an ONNX model, x:float32[32,128] to y."""
    draw = random.Random(0)  # noqa: S311 - weights, not a secret
    graph, name = b"", "x"
    for layer in range(LAYERS):
        values = [draw.gauss(0, 1 / WIDTH) for _ in range(WIDTH * WIDTH)]
        last = "y" if layer == LAYERS - 1 else f"a{layer}"
        graph += _part(1, _node("MatMul", (name, f"w{layer}"), f"m{layer}"))
        graph += _part(1, _node("Tanh", (f"m{layer}",), last))
        raw = struct.pack(f"<{len(values)}f", *values)
        dims = _number(1, WIDTH) + _number(1, WIDTH)
        graph += _part(5, dims + _number(2, FLOAT) + _part(8, f"w{layer}".encode()) + _part(9, raw))
        name = last
    graph += _part(2, b"selftest") + _part(11, _port("x")) + _part(12, _port("y"))
    model = _number(1, IR_VERSION) + _part(8, _part(1, b"") + _number(2, OPSET)) + _part(7, graph)
    path.write_bytes(model)


def _node(operator: str, inputs: tuple[str, ...], output: str) -> bytes:
    return (
        b"".join(_part(1, name.encode()) for name in inputs) + _part(2, output.encode()) + _part(4, operator.encode())
    )


def _port(name: str) -> bytes:
    shape = b"".join(_part(1, _number(1, size)) for size in (ROWS, WIDTH))
    return _part(1, name.encode()) + _part(2, _part(1, _number(1, FLOAT) + _part(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _part(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
