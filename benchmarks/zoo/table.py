"""What the zoo showed as a Markdown page: on the terminal, in reports/, and with --write in docs/."""

from __future__ import annotations

import platform
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from benchmarks.page import ROOT, markdown_table, of_targets, publish
from benchmarks.zoo import agreement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PAGE = ROOT / "docs" / "zoo.md"
HEAD = """# Real models: does the verdict hold on what others ship?

Made by `make bench-zoo`: {real} models with their weights from {packages} packages of the package index, and {built}
architectures built from configurations with seeded weights. Each goes through every lane of this machine as
`pytest --mf-model FILE --mf-input ...` does it ({suites}), and each artifact through a second opinion, a script that
knows nothing of this package: its outputs in the plain runtime against the source's own, on rows of its own.
"""
DEFINITIONS = """## What is counted

- **same**: the artifact's outputs are the source's with at least 60 dB (fp32, default), 30 dB (fp16, fp16-weights) or
  20 dB (bf16). **destroyed**: below 40, 15 and 10 dB, other shapes, or NaN where the source has numbers.
  **unclear**: between the two. **none**: there is no artifact, or the plain runtime does not run it.
- **false pass**: passed, and destroyed. **unchecked**: passed without a parity check. **false alarm**: failed or
  fallback, and the same; a fallback whose runtime itself states another precision for its products is true.
  **unjudged**: any other outcome where the second opinion could judge. **open**: the second opinion cannot judge.
"""
WORDS = ("agree", "false pass", "unchecked", "false alarm", "unjudged", "open")


def show(found: list[dict[str, Any]], note: str, *, write: bool, before: Sequence[dict[str, Any]] = ()) -> int:
    """Print the page, write it beside the JSON into reports/, with ``write`` into docs/; 1 where a target is missed.

    ``before`` is what an earlier run has found: what both have looked at is compared.
    """
    page = "\n".join(_page(found, note, before)) + "\n"
    return publish(page, found, "zoo", PAGE if write else None, agreement.targets(list(found)))


def _page(found: list[dict[str, Any]], note: str, before: Sequence[dict[str, Any]] = ()) -> Iterator[str]:
    from benchmarks.zoo.subject import SUITES

    real = [model for model in found if model["package"]]
    packages = {model["package"] for model in real}
    yield HEAD.format(
        real=len(real), packages=len(packages), built=len(found) - len(real), suites=", ".join(f"`{s}`" for s in SUITES)
    )
    yield from _where(found, note)
    yield "\n## Targets\n"
    yield from of_targets(agreement.targets(list(found)))
    if before:
        yield "\n## Before and now\n"
        yield from _before_and_now(before, found)
    every = agreement.lines(found)
    yield "\n## By lane\n"
    yield from _lanes(every)
    yield "\n## Is a half precision of use\n"
    yield "The limit is 15 dB by the product's own measure, on rows that the second opinion does not see. What the half"
    yield "`fit` shows may change it, `report` may not."
    yield ""
    head = ("half", "precision", "same", "of them below 15 dB", "destroyed", "of them from 15 dB on")
    yield from markdown_table(head, agreement.usable(found))
    yield "\n## By model\n"
    yield from _models(found, every)
    yield "\n## Where the two differ\n"
    differ = [line for line in every if line.word in {"false pass", "unchecked", "false alarm"}]
    yield from markdown_table(
        ("model and lane", "verdict", "second opinion", "word", "why"),
        (
            (f"{x.model}: {x.lane}", x.outcome, x.opinion, x.word, x.why[:300].replace("|", "/").replace("\n", " "))
            for x in differ
        ),
    )
    yield "\n## What was not judged, by cause\n"
    counted = agreement.causes(list(found)).most_common()
    yield from markdown_table(("outcome", "cause", "cells"), ((o, c.replace("|", "/"), n) for (o, c), n in counted))
    yield "\n" + DEFINITIONS


def _where(found: list[dict[str, Any]], note: str) -> Iterator[str]:
    header = next((model["header"] for model in found if "header" in model), {})
    machine = header.get("machine", {})
    versions = {"Python": platform.python_version(), **header.get("versions", {})}
    minutes = sum(sum(model["seconds"].values()) for model in found) / 60
    yield f"{datetime.now(timezone.utc):%Y-%m-%d}, {machine.get('cpu', 'unknown processor')}, "
    yield f"{machine.get('cores', '?')} cores, {machine.get('os', '')}. "
    yield f"{', '.join(f'{n} {v}' for n, v in versions.items())}. {minutes:.0f} minutes of processes. {note}".rstrip()


def _before_and_now(before: Sequence[dict[str, Any]], found: list[dict[str, Any]]) -> Iterator[str]:
    """The targets and the words of two runs over the models that both have looked at."""
    both = {model["name"] for model in before} & {model["name"] for model in found}
    runs = [[model for model in run if model["name"] in both] for run in (before, found)]
    yield f"{len(both)} models that both runs have looked at, each judged by its own run's second opinion."
    yield ""
    rows: list[tuple[Any, ...]] = [
        (then.what, then.found, now.found) for then, now in zip(*(agreement.targets(run) for run in runs), strict=True)
    ]
    counts = [Counter(line.word for line in agreement.lines(run)) for run in runs]
    rows += [(f"cells: {word}", *(count[word] for count in counts)) for word in WORDS]
    yield from markdown_table(("", "before", "now"), rows)


def _lanes(every: list[agreement.Line]) -> Iterator[str]:
    lanes: dict[str, Counter[str]] = {}
    for line in every:
        lanes.setdefault(line.lane, Counter())[line.word] += 1
    yield from markdown_table(
        ("lane", "cells", *WORDS),
        ((lane, sum(c.values()), *(c[w] or "" for w in WORDS)) for lane, c in sorted(lanes.items())),
    )


def _models(found: list[dict[str, Any]], every: list[agreement.Line]) -> Iterator[str]:
    def row(model: Mapping[str, Any]) -> tuple[Any, ...]:
        own = [line for line in every if line.model == model["name"]]
        outcomes = Counter(line.outcome for line in own)
        words = Counter(line.word for line in own)
        said = ", ".join(f"{n} {o}" for o, n in outcomes.most_common()) or model["ended"][:160].replace(
            "|", "/"
        ).replace("\n", " ")
        other = ", ".join(f"{n} {w}" for w, n in words.most_common() if w != "agree")
        seconds = model["seconds"]
        return (
            model["name"], model["kind"], model["package"] or "–", agreement.half(model["name"]), said, other,
            model.get("truth", ""), f"{seconds['product']:.0f} + {seconds['opinion']:.0f}",
        )  # fmt: skip

    head = ("model", "kind", "package", "half", "cells by outcome", "not agreed", "truth", "seconds")
    yield from markdown_table(head, (row(model) for model in found))
