"""Conformance and benchmark suite for ML model formats, as a pytest plugin.

What a package of another author needs stands here by name, and is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_modelformats.schema import Backend, Converter, Format, TensorSpec
    from pytest_modelformats.schema.contract import ConversionJob, Session, SessionJob

__version__ = "0.1.0"
__all__ = [
    "Backend",
    "ConversionJob",
    "Converter",
    "Format",
    "Session",
    "SessionJob",
    "TensorSpec",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import one of the names above on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    place = "schema.contract" if name in {"ConversionJob", "Session", "SessionJob"} else "schema"
    return getattr(importlib.import_module(f"{__name__}.{place}"), name)
