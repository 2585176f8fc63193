"""OpenVINO IR: an XML graph with its weights in a .bin beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.parsers import expat

from pytest_modelformats.errors import ConvertError, SourceError
from pytest_modelformats.schema import Description, classifies
from pytest_modelformats.source import metadata_sizes, sizes, stated_inputs
from pytest_modelformats.systems.openvino import ir as openvino_ir
from pytest_modelformats.systems.openvino.reference import evaluate_openvino

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pytest_modelformats.schema import Source
    from pytest_modelformats.schema.contract import Feed


class _NotAnIRError(Exception):
    """The document's root is not <net>, or it declares a document type."""


def sniff(path: Path, head: bytes) -> str | None:
    """Return ``openvino`` for well-formed XML with the root <net>; document types and entities are refused.

    Raises: SourceError where the file is called ``.xml`` and is empty, or is an IR that is cut off or has no .bin.
    """
    if not head and path.suffix.lower() == ".xml":
        msg = f"'{path.name}' is empty (0 bytes); save or copy the model again"
        raise SourceError(msg)
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return None
    roots: list[str] = []
    try:
        _parse(path, roots)
    except _NotAnIRError:
        return None
    except expat.ExpatError as error:
        if roots != ["net"]:
            return None
        msg = f"'{path.name}' is a damaged OpenVINO IR: {error}; save or copy it again"
        raise SourceError(msg) from None
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        msg = f"'{path.name}' is an OpenVINO IR, but its weights '{weights.name}' do not lie beside it; copy them there"
        raise SourceError(msg)
    return "openvino"


def describe(source: Source) -> Description:
    """State the model's inputs and outputs, with the user's shapes where given."""
    path = Path(source.location)
    model = openvino_ir.read(path)
    inputs, outputs = openvino_ir.specs(model.inputs), openvino_ir.specs(model.outputs)
    merged, following = stated_inputs.apply(path.name, inputs, outputs, source.inputs)
    summary = f"OpenVINO IR, {len(model.get_ops())} operators"
    known = (*sizes.pinned(inputs, merged), *metadata_sizes.dimensions(merged, openvino_ir.metadata(model)))
    return Description(tuple(merged), tuple(following), "", classifies(following), summary=summary, sizes=known)


def evaluate(source: Source, feeds: Sequence[Feed], precision: str) -> tuple[list[list[np.ndarray]], str]:
    """The outputs per feed at ``float64`` or a precision's name, and one line that says by which method."""
    return evaluate_openvino(source, feeds, precision)


def check(artifact: Path) -> None:
    """Read the model and infer every type and shape again; raises ConvertError with what OpenVINO says."""
    try:
        openvino_ir.read(artifact).validate_nodes_and_infer_types()
    except (SourceError, RuntimeError) as error:
        msg = f"OpenVINO refuses '{artifact.name}': {openvino_ir.reason(error)}"
        raise ConvertError(msg) from error


def _parse(path: Path, roots: list[str]) -> None:
    """Read the whole document in chunks, keeping nothing but the name of its root."""

    def start(name: str, _attributes: object) -> None:
        if not roots:
            roots.append(name)
            if name != "net":
                raise _NotAnIRError

    def refuse(*_arguments: object) -> None:
        raise _NotAnIRError

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    with path.open("rb") as file:
        parser.ParseFile(file)
