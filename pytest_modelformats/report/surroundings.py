"""The environments of a run in a few words each: what was asked for, in the versions that were there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_modelformats.record.nouns import Header

_NAME = re.compile(r"[A-Za-z0-9._-]+")


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
