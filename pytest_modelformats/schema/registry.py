"""Names of formats, converters and backends, resolved on first use.

A name stands for ``module:attribute`` of a declaration (:class:`~.schema.Format`,
:class:`~.schema.Converter`, :class:`~.schema.Backend`). Adding a system is one file and one
line here; an outside package registers the same strings through the entry-point groups
``modelformats.formats``, ``modelformats.converters`` and ``modelformats.backends``.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema.system import Backend, Converter, Format

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS: dict[str, str] = {
    "pytorch": "pytest_modelformats.systems.torch.pytorch:FORMAT",
    "pt2": "pytest_modelformats.systems.torch.pt2:FORMAT",
    "torchscript": "pytest_modelformats.systems.torch.torchscript:FORMAT",
    "onnx": "pytest_modelformats.systems.onnx.format:FORMAT",
    "openvino": "pytest_modelformats.systems.openvino.format:FORMAT",
    "golden": "pytest_modelformats.systems.golden.format:FORMAT",
}

CONVERTERS: dict[str, str] = {
    "pt2_from_pytorch": "pytest_modelformats.systems.torch.pt2_from_pytorch:CONVERTER",
    "torchscript_from_pytorch": "pytest_modelformats.systems.torch.torchscript_from_pytorch:TRACE",
    "torchscript_from_pytorch_script": "pytest_modelformats.systems.torch.torchscript_from_pytorch:SCRIPT",
    "onnx_from_pytorch": "pytest_modelformats.systems.onnx.from_pytorch:DYNAMO",
    "onnx_from_pytorch_legacy": "pytest_modelformats.systems.onnx.from_pytorch:LEGACY",
    "onnx_from_pt2": "pytest_modelformats.systems.onnx.from_pt2:CONVERTER",
    "onnx_from_torchscript": "pytest_modelformats.systems.onnx.from_torchscript:CONVERTER",
    "onnx_fp16_from_onnx": "pytest_modelformats.systems.onnx.fp16_from_onnx:CONVERTER",
    "openvino_from_pytorch": "pytest_modelformats.systems.openvino.from_pytorch:CONVERTER",
    "openvino_from_pt2": "pytest_modelformats.systems.openvino.from_pt2:CONVERTER",
    "openvino_from_torchscript": "pytest_modelformats.systems.openvino.from_torchscript:CONVERTER",
    "openvino_from_onnx": "pytest_modelformats.systems.openvino.from_onnx:CONVERTER",
    "openvino_fp16_weights_from_openvino": (
        "pytest_modelformats.systems.openvino.fp16_weights_from_openvino:CONVERTER"
    ),
}

BACKENDS: dict[str, str] = {
    "torch": "pytest_modelformats.systems.torch.eager:BACKEND",
    "torch-compile": "pytest_modelformats.systems.torch.compiled:BACKEND",
    "torch-export": "pytest_modelformats.systems.torch.exported:BACKEND",
    "torchscript": "pytest_modelformats.systems.torch.scripted:BACKEND",
    "onnxruntime": "pytest_modelformats.systems.onnxruntime.backend:BACKEND",
    "openvino": "pytest_modelformats.systems.openvino.backend:BACKEND",
}


_T = TypeVar("_T", Format, Converter, Backend)


def resolve(reference: str) -> Any:
    """Import ``module:attribute`` and return the attribute."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _load(kind: str, own: Mapping[str, str], expected: type[_T]) -> dict[str, _T]:
    from importlib.metadata import entry_points

    references = dict(own)
    for entry in entry_points(group=f"modelformats.{kind}"):
        if entry.name in references:
            both = f"{references[entry.name]} and {entry.value}"
            msg = f"two packages register the {kind[:-1]} '{entry.name}': {both}; uninstall one"
            raise ConfigurationError(msg)
        references[entry.name] = entry.value
    loaded: dict[str, _T] = {}
    for name, reference in references.items():
        declaration = resolve(reference)
        if not isinstance(declaration, expected) or declaration.name != name:
            msg = f"{reference}, registered as the {kind[:-1]} '{name}', is not a {expected.__name__} of that name"
            raise ConfigurationError(msg)
        loaded[name] = declaration
    return loaded


@cache
def formats() -> dict[str, Format]:
    """Every format by name."""
    return _load("formats", FORMATS, Format)


@cache
def converters() -> dict[str, Converter]:
    """Every converter by name."""
    return _load("converters", CONVERTERS, Converter)


@cache
def backends() -> dict[str, Backend]:
    """Every backend by name."""
    return _load("backends", BACKENDS, Backend)
