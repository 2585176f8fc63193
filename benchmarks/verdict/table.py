"""What was found as a Markdown page: on the terminal, in reports/, and with --write in docs/."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from benchmarks.page import ROOT, markdown_table, of_targets, publish
from benchmarks.verdict import tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    Line = dict[str, Any]

PAGE = ROOT / "docs" / "verdict-benchmark.md"
MOST = 40  # lines of a list

HEAD = """# Does the verdict find faults, and only faults?

Made by `make bench-verdict`. Faults of {classes} classes are put into correct ONNX graphs and TorchScript modules
of {architectures} architectures, converted by the product itself, and the product judges each as a candidate
(`contract`, `parity`, `batch`, at its defaults). Faithful conversions of random networks are judged beside them.
"""
DEFINITIONS = """## What is counted

- **Effective**: the correct and the faulty model are both evaluated in float64 (`onnx.reference` on the graph raised
  to double; for TorchScript the edited module in double) on 4 families of 7 inputs that the product does not see. An
  output is changed where an element differs by more than 2^-24 (one fp32 rounding unit) of the output's largest
  magnitude, or where a shape, an integer, NaN or Inf differs. Nothing of the product's verdict is used.
- **Size**: rms of that change over the rms of what fp32 rounding costs the correct model, where it is largest. Below
  1 the change is smaller than the rounding that it hides in; such faults are effective in float64 and are counted
  apart from those **beyond rounding** (size 1 or more, or no matter of size: shapes, integers, NaN).
- **Caught**: any of the three checks of the candidate's cell ended otherwise than passed; what was skipped is not.
- **False alarm**: the same for a faithful cell: a conversion by the product, or an edit that changes nothing.
- **True fallback**: OpenVINO serves fp16 and its default as bf16 on processors with its instructions. The product says
  so, and it is true; these cells are recognised by backend, asked precision, the one outcome `fallback` and the
  measured bf16, and counted apart.
- The other rules are applied to the very outputs that the product judges, against PyTorch's fp32 outputs; dynamo's
  compare errors against float64. Over all precisions dynamo's ratio is taken against the noise of each cell's own
  precision, the others as they are: a fixed tolerance knows no precision.
"""


def show(found: Line, *, write: bool) -> int:
    """Print the page, write it beside the JSON into reports/, with ``write`` into docs/; 1 where a target is missed."""
    page = "\n".join(_page(found))
    return publish(page, found, "verdict", PAGE if write else None, tally.targets(found))


def _page(found: Line) -> Iterator[str]:
    yield HEAD.format(classes=len(tally.by_class(found)), architectures=len(found["architectures"]))
    yield from _where(found)
    yield "\n## Targets\n"
    yield from of_targets(tally.targets(found))
    if found["cases"]:
        yield from _faults(found)
    yield from _alarms(found)
    yield "\n" + DEFINITIONS
    yield "## Architectures\n"
    cases = [line["architecture"] for line in found["cases"]]
    rows = ((name, kind, cases.count(name)) for name, kind in found["architectures"].items())
    yield from markdown_table(("name", "kind", "cases"), rows)
    yield ""


def _where(found: Line) -> Iterator[str]:
    header = found.get("header") or {}
    machine = header.get("machine", {})
    versions = {"Python": platform.python_version(), **header.get("versions", {})}
    seconds = sum(s["product"] + s.get("making", 0.0) for s in found["seconds"].values())
    yield f"{found['date']}, {machine.get('cpu', 'unknown processor')}, {machine.get('cores', '?')} cores, one thread, "
    yield f"{machine.get('os', '')}. {', '.join(f'{n} {v}' for n, v in versions.items())}. Seed {found['seed']}; "
    yield f"{seconds / 60:.0f} minutes. {found.get('note', '')}".rstrip()


def _faults(found: Line) -> Iterator[str]:
    yield "\n## Rule by rule\n"
    head = ("rule", "caught, beyond rounding", "caught, effective in float64", "false alarms, fp32", "all precisions")
    yield from markdown_table(
        head, ((rule, *("–" if s is None else s for s in shares)) for rule, shares in tally.by_rule(found).items())
    )
    yield "\n## By the size of the change\n"
    yield "The graded faults move one weight by 2^-6 to 2^-20 of itself: nobody's mistake, but the scale on which"
    yield "detection ends. No target counts them.\n"
    classes, graded = tally.by_size(tally.effective(found)), tally.graded(found)
    columns = (classes, tally.by_size(graded), tally.by_size(graded, "dynamo's ratio, k = 2"))
    rows = ((f"{low:g} to {high:g}", *(column[low, high] for column in columns)) for low, high in classes)
    yield from markdown_table(("size, × rounding", "caught, the classes", "graded", "graded, dynamo's ratio"), rows)
    yield "\n## Class by class\n"
    head = ("fault", "architectures", "cases", "ONNX: caught of effective", "TorchScript", "smallest size caught")
    rows = (
        (name, r["architectures"], r["cases"], r["onnx"], r["torchscript"], _number(r["smallest"]))
        for name, r in tally.by_class(found).items()
    )
    yield from markdown_table(head, rows)
    yield from _missed(found)
    yield from _places(found)


def _missed(found: Line) -> Iterator[str]:
    lines = tally.missed(found)
    yield f"\n## Missed: {len(lines)} effective faults\n"
    if lines:
        head = ("case", "fault", "size", "largest change / scale", "noise ratio", "point ratio")
        keys = ("size", "relative", "noise_ratio", "point_ratio")
        yield from markdown_table(head, ((e["stem"], e["fault"], *[_number(e[k]) for k in keys]) for e in lines[:MOST]))
    odd = tally.accused_without_effect(found)
    yield f"\nAccused without an effect on the benchmark's own inputs: {len(odd)}."
    yield from (f"- {line['stem']}: {line['sentence']}" for line in odd[:MOST])


def _places(found: Line) -> Iterator[str]:
    place = tally.localisation(found)
    yield "\n## Where the fault is\n"
    if not place["first"].whole:
        yield "The product named no node."
        return
    yield f"Named first: {place['first']}; a node was named for {place['named']} of the caught faults with a place."
    apart = ", ".join(f"{d}: {n}" for d, n in place["distances"].items())
    yield f"Edges between the named and the true node: {apart}; without a way between them: {place['elsewhere']}."
    if place["seconds"] is not None:
        yield f"It took {place['seconds']:.1f} s at most."
    if place["peak_ratio"] is not None:
        yield f"Peak memory at most {place['peak_ratio']:.2f} × one inference with its weights."


def _alarms(found: Line) -> Iterator[str]:
    yield "\n## Faithful cells\n"
    cells = tally.faithful(found)
    names = list(dict.fromkeys(line["precision"] for line in cells))
    rows = [(name, tally.share((c for c in cells if c["precision"] == name), lambda c: c["caught"])) for name in names]
    yield from markdown_table(("precision", "accused"), rows)
    fallen = tally.fallbacks(found)
    yield f"\nTrue fallbacks (fp16 or the default asked of OpenVINO, bf16 ran): {len(fallen)}."
    unjudged = [line for line in found["faithful"] if not line["judged"]]
    yield f"Cells that were not judged, and are in no count: {len(unjudged)}."
    accused = [line for line in cells if line["caught"]]
    yield from (f"- {line['cell']}: {line['sentence']}" for line in accused[:MOST])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
