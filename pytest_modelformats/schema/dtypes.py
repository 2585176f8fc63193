"""Float dtypes that a call and the model it is of need not share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    Feed = Mapping[str, np.ndarray]
    Run = Callable[[Feed], Sequence[np.ndarray]]


def own_dtypes(wanted: Sequence[tuple[str, str]], stated: Sequence[tuple[str, str]], precision: str) -> dict[str, str]:
    """The inputs, by name, that an artifact of a narrow precision takes in that precision's own float dtype.

    ``wanted`` are the source's (name, dtype), ``stated`` the runtime's; the contract allows it (``interface.py``).
    """
    own = {"fp16": "float16", "bf16": "bfloat16"}.get(precision, "")
    named = dict(stated)
    places = [dtype for _, dtype in stated] if len(stated) == len(wanted) else [""] * len(wanted)
    return {
        name: own
        for (name, dtype), by_place in zip(wanted, places, strict=True)
        if own and "float" in dtype and dtype != own == named.get(name, by_place)
    }


def in_dtypes(feed: Feed, dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The feed with the named inputs rounded to a narrower float; bfloat16, which numpy lacks, stays in float32."""
    import numpy as np

    cast = dict(feed)
    for name, dtype in dtypes.items():
        with np.errstate(over="ignore"):  # infinite there, as inside an artifact that takes float32 and casts itself
            if dtype != "bfloat16":
                cast[name] = feed[name].astype(dtype)
                continue
            wide = np.array(feed[name], np.float32)
        bits = wide.view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
        cast[name] = np.where(np.isnan(wide), wide, rounded.view(np.float32))
    return cast
