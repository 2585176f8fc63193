"""What crosses a border (a worker's channel, pytest-xdist, JSON) is plain: builtins, nothing else.

Standard library only: workers under foreign interpreters use it too.
"""

from __future__ import annotations

import math
from dataclasses import asdict, is_dataclass
from enum import Enum
from typing import Any


def plain(value: Any) -> Any:  # noqa: PLR0911 - one return per kind of value reads best
    """The value as JSON and execnet can carry it; a number that is not finite becomes ``None``."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (bool, bytes)):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # a subclass such as torch's version is not plain
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if hasattr(value, "items"):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)
