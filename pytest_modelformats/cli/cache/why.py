"""Why a conversion is in the cache or not: the keys of a chain, and what differs from those of entries that are there.

Nothing is converted. An entry's ``metadata.json`` holds the parts that its key was made of (``convert.KeyedStep``);
entries of earlier versions of this tool hold some of them, and it is said which ones are not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pytest_modelformats.convert.cache import METADATA
from pytest_modelformats.convert.chain import chain_key, keyed_steps
from pytest_modelformats.schema import registry
from pytest_modelformats.schema.numbers import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_modelformats.convert.cache import Cache, Entry
    from pytest_modelformats.convert.chain import KeyedStep, Origin
    from pytest_modelformats.schema import PlannedCell

# How many entries under another key are shown of each step; the nearest ones say the most.
NEAREST = 3
_DIGITS = 12
_SOURCE = {
    "content": "content of the source",
    "fingerprint": "code of the architecture",
    "inputs": "inputs",
    "outputs": "outputs",
}
_HASHES = frozenset({"code", "content", "fingerprint"})
_NAMED = frozenset({"converter", "precision"})
# The parts of a step that are tables, and what a value is called that is not in one.
_TABLES = {"options": "not set", "libraries": "not installed"}
_OPTIONS = {"opset": "--mf-opset", "dynamic": "dynamic dimensions (--mf-static)"}


@dataclass(frozen=True, slots=True)
class Other:
    """An entry of the same model, format and precision under another key: what differs, and what is not known."""

    entry: Entry
    differences: tuple[str, ...]
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What the cache has of one step: its entry, or what is wrong with it, or others, the nearest first."""

    step: KeyedStep
    entry: Entry | None
    damaged: str = ""
    others: tuple[Other, ...] = ()


def explain(planned: PlannedCell, origin: Origin, cache: Cache) -> tuple[Found, ...]:
    """What the cache has of every step of a cell's chain."""
    found = []
    kept: tuple[Entry, ...] | None = None
    for step in keyed_steps(planned, origin):
        entry, damaged = cache.look(step.key)
        others: tuple[Other, ...] = ()
        if entry is None:
            kept = tuple(cache.entries()) if kept is None else kept
            alike = [e for e in kept if e.key != step.key and _alike(e.metadata, planned.cell.model, step)]
            others = tuple(sorted((compared(e, step) for e in alike), key=_nearness))
        found.append(Found(step, entry, damaged, others))
    return tuple(found)


def compared(entry: Entry, step: KeyedStep) -> Other:
    """What differs between the parts of an entry's key and those of a step."""
    parts, unknown = parts_of(entry.metadata)
    differences = tuple(_differences(parts, step.parts))
    if not differences and not unknown:
        same = chain_key(parts) == entry.key
        unknown = (
            "every part of the key is as it is now, so this version of the tool makes the key otherwise"
            if same
            else "the parts that its metadata states do not make its key, so the metadata was changed"
        )
    elif not differences:
        unknown += "; what it does say is as it is now, so it is this that differs"
    return Other(entry, differences, unknown)


def parts_of(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The parts of the key as an entry's metadata states them, and in words which of them it does not state."""
    parts = metadata.get("key_parts")
    if isinstance(parts, dict) and _is_whole(parts):
        return parts, ""
    source = {name: metadata[name] for name in ("fingerprint", "inputs", "outputs") if name in metadata}
    if "source_sha256" in metadata:
        source["content"] = metadata["source_sha256"]
    chain = _chain(metadata)
    before = [dict(zip(("converter", "precision"), text.split(":", 1), strict=False)) for text in chain[:-1]]
    own = {name: metadata[name] for name in ("converter", "precision", *_TABLES) if name in metadata}
    lacks = "the version of the converter"
    if before:
        lacks += " nor the versions, options and libraries of the conversions before it"
    return {"source": source, "steps": [*before, own]}, f"its metadata, of an earlier version, does not say {lacks}"


def _is_whole(parts: Mapping[str, Any]) -> bool:
    return (
        isinstance(parts.get("source"), dict)
        and isinstance(parts.get("steps"), list)
        and bool(parts["steps"])
        and all(
            isinstance(s, dict) and {"converter", "version", "precision", *_TABLES} <= set(s) for s in parts["steps"]
        )
    )


def _chain(metadata: Mapping[str, Any]) -> list[str]:
    """The chain up to the entry itself; earlier versions wrote down that of the whole cell it was made for."""
    chain = [str(text) for text in metadata.get("chain") or () if isinstance(text, str)]
    own = f"{metadata.get('converter')}:{metadata.get('precision')}"
    return chain[: chain.index(own) + 1] if own in chain else [own]


def _alike(metadata: Mapping[str, Any], model: str, step: KeyedStep) -> bool:
    """Whether an entry is of the same model (by name or content), format and precision."""
    if metadata.get("what") != "artifact" or metadata.get("precision") != step.own["precision"]:
        return False
    content = step.parts["source"]["content"]
    same = metadata.get("model") == model or (bool(content) and metadata.get("source_sha256") == content)
    return same and format_of(metadata) == step.converter.target


def format_of(metadata: Mapping[str, Any]) -> str:
    """The format of an entry's artifact, "" where that is not known."""
    converter = registry.converters().get(str(metadata.get("converter")))
    return str(metadata.get("format") or (converter.target if converter else ""))


def _nearness(other: Other) -> tuple[bool, int, float]:
    return bool(other.unknown and not other.differences), len(other.differences), -made(other.entry).timestamp()


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """One line per part that differs; what ``then`` does not state is passed over."""
    for name, title in _SOURCE.items():
        if name in then["source"] and then["source"][name] != now["source"][name]:
            short = _short if name in _HASHES else _written
            yield f"{title}: {short(then['source'][name])} then, {short(now['source'][name])} now"
    chains = [_told_chain(parts["steps"]) for parts in (then, now)]
    if chains[0] != chains[1]:
        yield f"conversions: {chains[0]} then, {chains[1]} now"
    earlier = {(step.get("converter"), step.get("precision")): step for step in then["steps"]}
    seen: set[str] = set()
    for step in now["steps"]:
        for text in _of_step(earlier.get((step["converter"], step["precision"]), {}), step):
            if text not in seen:  # two conversions that stand on one library differ by it once
                seen.add(text)
                yield text


def _of_step(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name, value in now.items():
        if name in _NAMED or name not in then or then[name] == value:
            continue
        if name in _TABLES and isinstance(then[name], dict):
            for key in dict.fromkeys((*then[name], *value)):
                old, new = (_written(table.get(key), _TABLES[name]) for table in (then[name], value))
                if old != new:
                    title = key if name == "libraries" else _OPTIONS.get(key, f"option {key}")
                    yield f"{title} {old} then, {new} now"
        else:
            write = _short if name in _HASHES else _written
            yield f"{name} of {now['converter']}: {write(then[name])} then, {write(value)} now"


def _told_chain(steps: Iterable[Mapping[str, Any]]) -> str:
    return " → ".join(f"{step.get('converter')} ({step.get('precision')})" for step in steps)


def _short(value: object) -> str:
    return str(value)[:_DIGITS] or "none (it is built by code)"


def _written(value: object, absent: str = "not set") -> str:
    if value is None:
        return absent
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def made(entry: Entry) -> datetime:
    """When an entry was made: what it says, or else when its files were moved into place."""
    try:
        return datetime.fromisoformat(str(entry.metadata["made_at"])).astimezone(timezone.utc)
    except (KeyError, ValueError):
        pass
    try:
        return datetime.fromtimestamp((entry.folder / METADATA).stat().st_mtime, timezone.utc)
    except OSError:
        return datetime.fromtimestamp(0, timezone.utc)


def told(cell: str, found: Sequence[Found], folder: Path, *, everything: bool = False) -> Iterator[str]:
    """The explanation as lines of text."""
    there = sum(f.entry is not None for f in found)
    word = "a hit" if there == len(found) else "a miss"
    yield f"{cell}: {word}, {there} of {plural(len(found), 'conversion')} in the cache {folder}"
    for number, one in enumerate(found, 1):
        own = one.step.own
        state = "in the cache" if one.entry else "damaged" if one.damaged else "not in the cache"
        yield f"\n{number}. {own['converter']}, {one.step.converter.target} at {own['precision']}: {state}"
        yield f"   key {one.step.key[:_DIGITS]}" + (f", made {when(one.entry)}" if one.entry else "")
        if one.damaged:
            yield f"   {one.damaged}; a run discards it and makes it again"
        elif one.entry is None:
            yield from _told_others(one.others, everything=everything)


def _told_others(others: Sequence[Other], *, everything: bool) -> Iterator[str]:
    if not others:
        yield "   Nothing of this model in this format and precision is in the cache under another key either."
        return
    shown = others if everything else others[:NEAREST]
    for other in shown:
        yield f"   There is {other.entry.key[:_DIGITS]}, made {when(other.entry)}; what differs:"
        yield from (f"     {text}" for text in other.differences)
        if other.unknown:
            yield f"     {other.unknown}"
    if len(others) > len(shown):
        yield f"   There are {len(others) - len(shown)} more, which differ by more or are older; --all shows them."


def when(entry: Entry) -> str:
    """When an entry was made, as a person reads it."""
    return f"{made(entry):%Y-%m-%d %H:%M} UTC"
