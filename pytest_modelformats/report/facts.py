"""A runtime's statement of what it executed, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def executed(execution: Mapping[str, Any]) -> str:
    """``fp32 53, fp16 2 operators on cpu; 4 casts inserted (profile)``; why not, where nothing is stated."""
    precisions, devices = _counts(execution, "precisions"), _counts(execution, "devices")
    if not precisions:
        return str(execution.get("why_not") or "nothing is stated")
    said = ", ".join(f"{name} {count}" for name, count in precisions.items())
    where = " and ".join(f"{name} ({count})" if len(devices) > 1 else name for name, count in devices.items())
    place = f" on {where}" if where else ""
    inserted = execution.get("inserted_casts")
    casts = f"; {inserted} cast{'s' if inserted != 1 else ''} inserted" if inserted else ""
    return f"{said} {execution.get('counted', 'operators')}{place}{casts} ({execution.get('source', '')})"


def _counts(execution: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = execution.get(key)
    return found if isinstance(found, dict) else {}
