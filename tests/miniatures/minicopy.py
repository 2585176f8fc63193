"""The format "minicopy": what the miniature converters write."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from miniatures import mini
from miniatures.mini import check, describe, evaluate

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FORMAT", "check", "describe", "evaluate", "sniff"]

FORMAT = replace(
    mini.FORMAT, name="minicopy", title="copied miniature", module="miniatures.minicopy", suffix=".minicopy.npz"
)


def sniff(path: Path, head: bytes) -> str | None:
    """Return ``minicopy`` for an .npz that says so."""
    return "minicopy" if mini.marked(path, head, "minicopy") else None
