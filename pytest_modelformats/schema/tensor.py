"""Named, typed, shaped places for tensors, and the text they are written as."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Read from the end, because a name may hold anything: "serving_default_x:0", "h[0]", "a,b".
_SPEC = re.compile(
    r"^(?:(?P<name>.+):)?(?P<dtype>[a-z]+\d*)\[(?P<shape>[^\[\]]*)\](?:\{(?P<low>[^{},.]+(?:\.\d+)?)\.\.(?P<high>[^{}]+)\})?$"
)
# A sample of 1 TiB and more, whatever its dtype.
MOST_ELEMENTS = 2**40
DTYPES = frozenset(
    [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
        "bool",
    ]
)


def _dimensions(text: str, shape: str) -> tuple[int | str, ...]:
    """The dimensions of a specification; raises ConfigurationError."""
    dims: list[int | str] = []
    for dim in (part.strip() for part in shape.split(",")):
        if re.fullmatch(r"[+-]?[0-9]+", dim):
            dims.append(int(dim))
        elif dim.isidentifier():
            dims.append(dim)
        elif dim:
            msg = (
                f"'{text}' has the dimension '{dim}', which is neither a whole number nor a name; "
                "write a letter such as N for a dimension that may vary"
            )
            raise ConfigurationError(msg)
    fixed = [dim for dim in dims if isinstance(dim, int)]
    if any(dim < 1 for dim in fixed):
        msg = f"'{text}' has a dimension below 1; write a letter such as N for a dimension that may vary"
        raise ConfigurationError(msg)
    if math.prod(fixed) > MOST_ELEMENTS:
        msg = f"'{text}' is a tensor of {math.prod(fixed):.3g} elements, more than any machine holds; correct its sizes"
        raise ConfigurationError(msg)
    return tuple(dims)


def _bounds(text: str, low: str, high: str) -> tuple[float, float]:
    """The range of a specification's values; raises ConfigurationError."""
    try:
        found = float(low), float(high)
    except ValueError:
        found = math.nan, math.nan
    if not -math.inf < found[0] <= found[1] < math.inf:
        msg = (
            f"'{text}' has the range {{{low}..{high}}}; write two numbers, the smaller one first, "
            "as in 'ids:int64[N,128]{0..30521}'"
        )
        raise ConfigurationError(msg)
    return found


def _typed(dim: int | str, axis: int) -> int | str:
    """A dimension as it can be written: a number, or a name."""
    if isinstance(dim, int) or dim.isidentifier():
        return dim
    return f"d{axis}" if axis else "N"


def _number(value: float) -> str:
    """A bound as text that reads back as itself."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named, typed, shaped place for a tensor, written ``ids:int64[N,S]{0..30521}``.

    What stands behind the last colon before the last bracket is the dtype; all before it is the name.

    ``shape`` holds an ``int`` for a fixed dimension, a ``str`` for a symbolic one, and is
    ``None`` where the format or runtime does not state it. ``low`` and ``high`` bound the
    values of integer inputs, both inclusive. An empty ``name`` means: not stated.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Write ``name:dtype[dims]{low..high}``, what :meth:`parse` reads."""
        dims = "?" if self.shape is None else ",".join(str(d) for d in self.shape)
        bounds = "" if self.low is None or self.high is None else f"{{{_number(self.low)}..{_number(self.high)}}}"
        return f"{self.name or '?'}:{self.dtype}[{dims}]{bounds}"

    @classmethod
    def parse(cls, text: str) -> TensorSpec:
        """Read ``name:dtype[dims]{low..high}``.

        Raises: ConfigurationError, showing the form that was expected.
        """
        match = _SPEC.match(text.strip())
        if match is None or match["dtype"] not in DTYPES:
            msg = (
                f"'{text}' is not an input specification; write name:dtype[dims], for example "
                "'input:float32[N,3,224,224]', or 'ids:int64[N,128]{0..30521}' with a range of values"
            )
            raise ConfigurationError(msg)
        dims = _dimensions(text, match["shape"])
        low, high = (None, None) if match["low"] is None else _bounds(text, match["low"], match["high"])
        return cls(match["name"] or "", match["dtype"], dims, low, high)

    @property
    def writable(self) -> TensorSpec:
        """The same with dimensions that :meth:`parse` reads: one whose name it does not (a term, "?") gets a letter."""
        if self.shape is None:
            return self
        return replace(self, shape=tuple(_typed(dim, axis) for axis, dim in enumerate(self.shape)))

    @property
    def pasted(self) -> str:
        """What is written behind ``--mf-input`` in a shell to say the same, in quotes."""
        return shlex.quote(str(self.writable))

    def to_json(self) -> dict[str, Any]:
        """The plain form that crosses the process border and goes into a record."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": None if self.shape is None else list(self.shape),
            "low": self.low,
            "high": self.high,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        """Undo :meth:`to_json`."""
        shape = data["shape"]
        return cls(data["name"], data["dtype"], None if shape is None else tuple(shape), data["low"], data["high"])

    @property
    def is_float(self) -> bool:
        """Whether the values are floating-point."""
        return "float" in self.dtype


def classifies(outputs: Sequence[TensorSpec]) -> bool:
    """Whether the outputs are those of a classifier: one row of numbers for each sample, a number for each class."""
    shape = outputs[0].shape if len(outputs) == 1 and outputs[0].is_float else None
    rows_of_classes = shape is not None and len(shape) == len(("N", "C")) and isinstance(shape[0], str)
    return rows_of_classes and isinstance(shape[1], int) and shape[1] > 1  # type: ignore[index]
