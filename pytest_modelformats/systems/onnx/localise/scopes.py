"""Which module of the source a node of an ONNX graph came from, as torch's two exporters write it down."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from pytest_modelformats.systems.torch.reference.calling import unwrapped

if TYPE_CHECKING:
    import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"


def module_of(node: onnx.NodeProto) -> str:
    """The module path (``layer3.2.conv1``), "" where the node does not tell."""
    stated = next((p.value for p in node.metadata_props if p.key == _SCOPES), None)
    return _of_scopes(stated) if stated is not None else _of_name(node)


def _of_scopes(stated: str) -> str:
    """From ``['', 'layer3', 'layer3.2', 'layer3.2.conv1', 'conv2d_5']``: the last that is followed by the operator."""
    try:
        scopes = ast.literal_eval(stated)
    except (ValueError, SyntaxError):
        return ""
    if not isinstance(scopes, list) or len(scopes) < 2 or not all(isinstance(s, str) for s in scopes):  # noqa: PLR2004 - a module and an operator
        return ""
    path = scopes[-2]
    return "" if path.startswith("_empty_nn_module_stack") else unwrapped(path)


def _of_name(node: onnx.NodeProto) -> str:
    """From ``/layer3/layer3.2/conv1/Conv`` of the legacy exporter: ``layer3.2.conv1``."""
    parts = node.name.split("/")
    if len(parts) < 3 or parts[0] or not parts[-1][:1].isupper():  # noqa: PLR2004 - "", module, operator
        return ""
    path = ""
    for part in parts[1:-1]:
        # A child of a Sequential is written with its parent's name before it: /body/body.0.
        parent, _, child = part.rpartition(".")
        inside = bool(parent) and path.rpartition(".")[2] == parent
        path = f"{path}.{child if inside else part}" if path else part
    return unwrapped(path)
