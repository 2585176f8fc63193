"""What a runtime states that it executed, what a converter changed, and the environments of a run, each in one line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema import numbers
from pytest_modelformats.schema.sizes import TRIED, written
from pytest_modelformats.source.sizes import options, said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_modelformats.record.nouns import Header, Model


def sizes(model: Model) -> str:
    """The sizes of the dimensions that a model leaves free, and who states them; "" where none is free.

    Where nobody does: where else parity was judged, and what to add.
    """
    if not model.sizes:
        return ""
    text = said(model.sizes)
    if any(one.by == TRIED for one in model.sizes):
        others = " and at ".join(written(one) for one in model.further_sizes)
        text += (
            f"; what passes there was judged at {others} too" if others else "; the source took no other of those tried"
        )
        text += f"; no latency was measured: say which sizes count with {options(model.pin)}" if model.pin else ""
    return text


_NAME = re.compile(r"[A-Za-z0-9._-]+")


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


def changed(conversion: Mapping[str, Any]) -> str:
    """What a conversion changed beside the format, in one or two sentences; "" where it changed nothing."""
    repaired, truncated = conversion.get("repaired"), conversion.get("truncated_values")
    told = []
    if isinstance(repaired, list) and repaired:
        by = conversion.get("exporter") or "the converter"
        told.append(f"What {by} made did not hold together and was mended: {', '.join(map(str, repaired))}.")
    if isinstance(truncated, int) and truncated:
        told.append(
            f"{numbers.plural(truncated, 'constant')} beyond what the precision holds "
            f"{'was' if truncated == 1 else 'were'} set to the nearest that it holds."
        )
    return " ".join(told)


def environments(header: Header) -> dict[str, str]:
    """By name: the required distributions with their versions and the interpreter's, or why there is none."""
    return {name: _told(facts) for name, facts in header.environments.items() if isinstance(facts, dict)}


def _told(facts: Mapping[str, Any]) -> str:
    if facts.get("problem"):
        return str(facts["problem"])
    versions = {_plain(name): (name, version) for name, version in dict(facts.get("versions") or {}).items()}
    asked = [_plain(m[0]) for text in facts.get("requirements") or () if (m := _NAME.match(str(text)))]
    named = [" ".join(map(str, versions[name])) for name in asked if name in versions]
    return f"{', '.join(named)}; Python {facts.get('python') or '–'}"


def _plain(name: object) -> str:
    """The name as package indexes compare it. Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", str(name)).lower()
