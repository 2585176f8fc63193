"""Which operators ONNX Runtime ran, where and at which precision: read from a profile of one short run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare.stated_execution import TYPES, Node, tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_modelformats.schema.contract import Feed

# A second session holds the weights a second time: beyond this the proof would endanger what it is to prove.
MOST_BYTES = 1 << 30
DEVICES = {"CPU": "cpu", "CUDA": "cuda", "Tensorrt": "cuda", "NvTensorRTRTX": "cuda", "ROCM": "rocm"}
_SUFFIX = "_kernel_time"


def profiled(open_again: Callable[[str], Any], feed: Feed, artifact: Path, *, tf32: bool = False) -> dict[str, Any]:
    """What ran, from one run of a session that is opened for the profile alone; its file is removed.

    ``open_again(prefix)`` opens the same artifact the same way, with a profile written to ``prefix``. ``tf32`` says
    that the GPU may compute fp32 operators in TF32.
    """
    import tempfile

    size = sum(path.stat().st_size for path in artifact.parent.glob(f"{artifact.name}*") if path.is_file())
    if size > MOST_BYTES:
        return {"source": "", "why_not": f"no profile was taken: a second session takes another {size / 1e9:.1f} GB"}
    with tempfile.TemporaryDirectory(prefix="modelformats-profile-") as folder:
        session = open_again(str(Path(folder) / "profile"))
        session.run(None, dict(feed))
        path = session.end_profiling()
        return read_profile(json.loads(Path(path).read_text(encoding="utf-8")), tf32=tf32)


def read_profile(events: list[dict[str, Any]], *, tf32: bool = False) -> dict[str, Any]:
    """The statement that a profile makes; a node that ran often (in a loop) counts once.

    A profile gives the type of the values, and TF32 is a way to compute with values of float32: where it is allowed,
    the fp32 operators of the GPU count as tf32 too, of which the error tells which it was.
    """
    ran = {
        (event["name"], event["args"].get("node_index")): event["args"]
        for event in events
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_SUFFIX) and "op_name" in event["args"]
    }
    casts: Counter[str] = Counter()
    inserted = 0
    for (name, _), args in ran.items():
        if args["op_name"] == "Cast":
            casts[f"{_precision(args, 'input') or 'other'} to {_precision(args, 'output') or 'other'}"] += 1
            inserted += str(name).startswith("Inserted")
    nodes = [Node(a["op_name"], _computes(a), _device(str(a.get("provider", "")))) for a in ran.values()]
    found = tally(nodes, "profile")
    single = found["precisions"].get("fp32", 0) if tf32 and found["devices"].get("cuda") else 0
    if single:
        found["precisions"]["tf32"] = single
        found["precision"] = "tf32" if found["precision"] == "fp32" else found["precision"]
    return {**found, "nodes": len(ran), "casts": dict(casts), "inserted_casts": inserted}


def _device(provider: str) -> str:
    name = provider.removesuffix("ExecutionProvider")
    return DEVICES.get(name, name.lower())


def _computes(args: Mapping[str, Any]) -> str:
    """The precision of what a node gives, or of what it takes where that is an index or a truth value."""
    return _precision(args, "output") or _precision(args, "input")


def _precision(args: Mapping[str, Any], side: str) -> str:
    kinds = [kind for entry in args.get(f"{side}_type_shape") or () for kind in entry]
    return next((TYPES[kind] for kind in kinds if kind in TYPES), "")
