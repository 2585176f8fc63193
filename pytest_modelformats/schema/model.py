"""A model: as the user gave it, and what it says of itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema.sizes import Dimension
from pytest_modelformats.schema.tensor import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Source:
    """A model as the user gave it.

    ``kind`` is what the content is (``state-dict``, ``pickled-module``, ``factory``,
    ``torchscript``, ``pt2``, ``onnx``, ``openvino``), ``format`` the format it is an
    artifact of. ``location`` is an absolute path, or ``module:callable`` for a factory.
    ``sha256`` covers every byte of the file or files ("" for a factory).
    ``inputs`` are the user's ``--mf-input`` specifications; empty means: ask the model.
    ``precision`` is the one that the file's numbers are written down in.
    """

    name: str
    location: str
    kind: str
    format: str
    sha256: str = ""
    arch: str = ""
    trust: bool = False
    inputs: tuple[TensorSpec, ...] = ()
    search_path: tuple[str, ...] = ()
    precision: str = "fp32"

    def to_json(self) -> dict[str, Any]:
        """The plain form that crosses the process border."""
        data = asdict(self)
        data["inputs"] = [spec.to_json() for spec in self.inputs]
        data["search_path"] = list(self.search_path)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Source:
        """Undo :meth:`to_json`."""
        fields = dict(data)
        fields["inputs"] = tuple(TensorSpec.from_json(s) for s in data["inputs"])
        fields["search_path"] = tuple(data["search_path"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Description:
    """What a source says of itself once it is loaded.

    ``fingerprint`` is a SHA-256 over everything that decides what the model computes and
    that the file's own hash does not cover (the code of its architecture).
    ``data`` names where real samples come from (``module:callable``), "" if nowhere.
    ``invented`` are the outputs that the source does not name: the names of these are the tool's own.
    ``sizes`` are those that it or ``--mf-input`` states for dimensions that it leaves free.
    ``notes`` are sentences on what was taken of the file where it was not the only choice.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    fingerprint: str
    classifier: bool = False
    data: str = ""
    summary: str = ""
    invented: tuple[str, ...] = ()
    sizes: tuple[Dimension, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plain form that crosses the process border."""
        data = asdict(self)
        data["inputs"] = [spec.to_json() for spec in self.inputs]
        data["outputs"] = [spec.to_json() for spec in self.outputs]
        data["invented"] = list(self.invented)
        data["sizes"] = [one.to_json() for one in self.sizes]
        data["notes"] = list(self.notes)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Description:
        """Undo :meth:`to_json`."""
        fields = dict(data)
        fields["inputs"] = tuple(TensorSpec.from_json(s) for s in data["inputs"])
        fields["outputs"] = tuple(TensorSpec.from_json(s) for s in data["outputs"])
        fields["invented"] = tuple(data.get("invented", ()))
        fields["sizes"] = tuple(Dimension.from_json(one) for one in data.get("sizes", ()))
        fields["notes"] = tuple(data.get("notes", ()))
        return cls(**fields)
