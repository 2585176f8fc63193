"""An ONNX file whose weights stay on disk: the graph is read at once, a weight when it is asked for.

What localisation looks at is a few tensors at a time; with the weights of two graphs in
memory it would cost more than the inference that it explains.

Source: the protobuf encoding specification; field numbers of ``onnx.proto``.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import SourceError, Unsupported
from pytest_modelformats.source.companions import _field
from pytest_modelformats.systems.onnx import graph as onnx_graph

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import onnx

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
# Below this a tensor stays in the graph: sizes, axes, scales.
KEPT_BYTES = 4096


class LazyModel:
    """An ONNX model: ``structure`` without its initialisers, ``weight(name)`` for each of them.

    Local functions are inlined.
    """

    def __init__(self, path: Path) -> None:
        """Read the structure; raises SourceError where the file is damaged."""
        from onnx import inliner

        self.path = path
        structure, self._spans = _stripped(path)
        onnx_graph.verify_external_data(structure, path)
        if structure.graph.sparse_initializer:
            msg = f"'{path.name}' holds sparse initialisers, which are not followed node by node"
            raise Unsupported(msg)
        self.tensors: dict[str, onnx.TensorProto] = {t.name: t for t in structure.graph.initializer}
        bare = type(structure)()
        bare.CopyFrom(structure)
        del bare.graph.initializer[:]
        self.structure = inliner.inline_local_functions(bare) if bare.functions else bare
        self.nodes: list[onnx.NodeProto] = list(self.structure.graph.node)

    @property
    def inputs(self) -> list[str]:
        """The names that a feed has to give."""
        return [v.name for v in self.structure.graph.input if v.name not in self.tensors]

    @property
    def outputs(self) -> list[str]:
        """The names of the graph's outputs, in order."""
        return [v.name for v in self.structure.graph.output]

    @property
    def weight_bytes(self) -> int:
        """What all weights together take."""
        return sum(_bytes_of(tensor) for tensor in self.tensors.values())

    def weight(self, name: str) -> np.ndarray:
        """The values of an initialiser, read now."""
        from onnx import numpy_helper

        array: np.ndarray = numpy_helper.to_array(self.tensor(name))
        return array

    def tensor(self, name: str) -> onnx.TensorProto:
        """An initialiser with its data inside."""
        from onnx import external_data_helper

        tensor = type(self.tensors[name])()
        tensor.CopyFrom(self.tensors[name])
        if name in self._spans:
            start, end = self._spans[name]
            with self.path.open("rb") as file:
                file.seek(start)
                tensor.raw_data = file.read(end - start)
        elif external_data_helper.uses_external_data(tensor):
            external_data_helper.load_external_data_for_tensor(tensor, str(self.path.parent))
            tensor.ClearField("data_location")
            del tensor.external_data[:]
        return tensor

    def types(self) -> dict[str, int]:
        """The element type of every tensor that shape inference can tell, by name."""
        from onnx import helper, shape_inference

        model = type(self.structure)()
        model.CopyFrom(self.structure)
        given = {v.name for v in model.graph.input}
        model.graph.input.extend(
            helper.make_tensor_value_info(n, t.data_type, list(t.dims))
            for n, t in self.tensors.items()
            if n not in given
        )
        graph = shape_inference.infer_shapes(model).graph
        return {
            v.name: v.type.tensor_type.elem_type
            for v in (*graph.value_info, *graph.input, *graph.output)
            if v.type.tensor_type.elem_type
        }


def _bytes_of(tensor: onnx.TensorProto) -> int:
    import math

    from onnx import helper

    size: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return math.prod(int(dim) for dim in tensor.dims) * size


def _stripped(path: Path) -> tuple[onnx.ModelProto, dict[str, tuple[int, int]]]:
    """The model without the raw data of its larger initialisers, and where in the file those lie, by name."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    spans: dict[str, tuple[int, int]] = {}
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            parts: list[bytes] = []
            for number, key_at, start, end in _fields(data, 0, len(data)):
                if number == _GRAPH:
                    graph = b"".join(_graph_parts(data, start, end, spans))
                    parts += [_key(_GRAPH), _varint(len(graph)), graph]
                else:
                    parts.append(data[key_at:end])
            model = onnx.ModelProto()
            model.ParseFromString(b"".join(parts))
    except (IndexError, ValueError, OSError, DecodeError) as error:
        msg = f"'{path.name}' cannot be read as an ONNX model: {onnx_graph.first_line(error)}"
        raise SourceError(msg) from error
    return model, spans


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Every field of a message: its number, where its key, its payload and the next field start."""
    while at < end:
        number, start, following = _field(data, at, end)
        yield number, at, start, following
        at = following


def _graph_parts(data: mmap.mmap, at: int, end: int, spans: dict[str, tuple[int, int]]) -> Iterator[bytes]:
    import onnx

    for number, key_at, start, following in _fields(data, at, end):
        if number != _INITIALIZER or following - start <= KEPT_BYTES:
            yield data[key_at:following]
            continue
        inner = [(n, k, s, f) for n, k, s, f in _fields(data, start, following)]
        bare = b"".join(data[k:f] for n, k, _, f in inner if n != _RAW_DATA)
        raw: Any = next(((s, f) for n, _, s, f in inner if n == _RAW_DATA), None)
        if raw is not None:
            tensor = onnx.TensorProto()
            tensor.ParseFromString(bare)
            spans[tensor.name] = raw
        yield from (_key(_INITIALIZER), _varint(len(bare)), bare)


def _key(number: int) -> bytes:
    return _varint(number << 3 | 2)


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
