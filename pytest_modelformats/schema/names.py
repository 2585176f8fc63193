"""Names that a person wrote: what was meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


# What people call it, where the spelling is nearer to another name.
_MEANT = {"gpu": "cuda", "nvidia": "cuda"}


def suggest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or, without a near match, the list of what is known."""
    names = sorted(known)
    meant = _MEANT.get(name.lower(), "")
    near = [meant] if meant in names else difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(names)}"
