"""A record that is looked into cell by cell, without ever being held whole: what comparing needs of a run.

One pass notes where the lines of each cell begin; a cell's lines are decoded when it is asked for. Ten million samples
cost no more memory than those of one cell.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.record.decode import MalformedLineError, decode, decode_check
from pytest_modelformats.record.nouns import CellRecord, Check, Header
from pytest_modelformats.schema import SCHEMA_VERSION, Outcome
from pytest_modelformats.schema.outcome import RUN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from pytest_modelformats.record.nouns import Latency, Parity

# The checks that comparing looks at; the lines of the others are not even decoded.
LOOKED_AT = frozenset({"parity", "latency", "throughput"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run found out about one cell, as far as runs are compared by it.

    ``outcome`` is that of the parity check, ``timed`` that of the latency check, ``None`` where there was none.
    ``throughput`` are the figures of every way of loading the cell. ``artifact`` says which file it was: where
    (``cache`` or ``file``), its path, its content's hash. ``versions`` are those of its environment. An empty
    ``decision`` means that the cell is not there.
    """

    cell: str
    decision: str = ""
    reason: str = ""
    environment: str = ""
    outcome: Outcome | None = None
    parity: Parity | None = None
    latency: Latency | None = None
    timed: Outcome | None = None
    throughput: tuple[Mapping[str, Any], ...] = ()
    artifact: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ran(self) -> bool:
        """Whether the cell was to run at all."""
        return self.decision == RUN


class Recorded:
    """A run's ``results.jsonl``, opened; also one that was cut off in the middle.

    ``complete`` is what its footer says; without one it is false.
    """

    def __init__(self, path: Path) -> None:
        """Note where every line begins; raises ConfigurationError where the file is no record."""
        self.path = path
        self.complete = False
        try:
            self._handle: BinaryIO = path.open("rb")
        except OSError as error:
            msg = f"{path} cannot be read ({error.strerror}); give the results.jsonl of a run"
            raise ConfigurationError(msg) from error
        self.head: Mapping[str, Any] = {}
        self._order = array("Q")
        self._places = array("Q")
        self._index()
        try:
            self.header: Header = decode(Header, self.head)
        except MalformedLineError as error:
            raise self._refusal(1, str(error)) from None

    def close(self) -> None:
        """Let go of the file."""
        self._handle.close()

    def cells(self) -> Iterator[str]:
        """The planned cells, in the order of the plan."""
        for offset in self._order:
            yield str(self._line(offset)["cell"])

    def __len__(self) -> int:
        """How many cells were planned."""
        return len(self._order)

    def facts(self, cell: str) -> Facts:
        """What is recorded of a cell."""
        decision = reason = environment = ""
        checks: dict[str, Check] = {}
        loaded: list[Any] = []
        for line in self._lines_of(cell):
            try:
                if line["kind"] == "cell":
                    planned = decode(CellRecord, line)
                    decision, reason, environment = planned.decision, planned.reason, planned.environment
                else:
                    check = decode_check(line)
                    checks.setdefault(str(line["check"]), check)
                    # One line for every batch size and number of requests in flight.
                    loaded += check.data.get("throughput") or () if line["check"] == "throughput" else ()
            except MalformedLineError as error:  # noqa: PERF203 - a handful of lines
                raise self._refusal(0, f"of the cell {cell} {error}") from None
        return _facts(Facts(cell, decision, reason, environment), checks, loaded)

    def planned(self, cell: str) -> Facts:
        """Whether a cell is there and was to run; nothing else of it is decoded."""
        line = next((found for found in self._lines_of(cell) if found["kind"] == "cell"), {})
        decision, reason, environment = (str(line.get(name) or "") for name in ("decision", "reason", "environment"))
        return Facts(cell, decision, reason, environment)

    def versions(self, environment: str = "") -> dict[str, str]:
        """The versions that were installed in an environment of the run."""
        if not environment:
            return {str(k): str(v) for k, v in self.header.versions.items()}
        known = (self.head.get("environments") or {}).get(environment) or {}
        return {str(k): str(v) for k, v in (known.get("versions") or {}).items()}

    def _index(self) -> None:
        """One pass: the header, and where the lines of each cell begin, sorted by a hash of its id."""
        keys, places = array("Q"), array("Q")
        offset = 0
        for number, raw in enumerate(self._handle, 1):
            if raw.strip():
                self._note(number, raw, offset, keys, places)
            offset += len(raw)
        if not self.head:
            raise self._refusal(1, "the file is empty")
        order = sorted(range(len(keys)), key=keys.__getitem__)
        self._keys = array("Q", (keys[i] for i in order))
        self._places = array("Q", (places[i] for i in order))

    def _note(self, number: int, raw: bytes, offset: int, keys: array[int], places: array[int]) -> None:
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            if raw.endswith(b"\n") or number == 1:
                raise self._refusal(number, "is not a JSON object") from None
            return  # cut off in writing
        if not isinstance(line, dict) or "kind" not in line:
            raise self._refusal(number, "has no 'kind'")
        kind = line["kind"]
        if number == 1:
            if kind != "header" or line.get("schema") != SCHEMA_VERSION:
                raise self._refusal(number, f"is no header of schema {SCHEMA_VERSION}")
            self.head = line
        elif kind == "footer":
            self.complete = bool(line.get("complete"))
        elif kind == "cell" or (kind == "check" and line.get("check") in LOOKED_AT):
            keys.append(_key(str(line.get("cell"))))
            places.append(offset)
            if kind == "cell":
                self._order.append(offset)

    def _line(self, offset: int) -> dict[str, Any]:
        self._handle.seek(offset)
        line: dict[str, Any] = json.loads(self._handle.readline())
        return line

    def _lines_of(self, cell: str) -> Iterator[dict[str, Any]]:
        key = _key(cell)
        at = bisect_left(self._keys, key)
        found = []
        while at < len(self._keys) and self._keys[at] == key:
            found.append(self._places[at])
            at += 1
        for offset in sorted(found):
            line = self._line(offset)
            if line.get("cell") == cell:
                yield line

    def _refusal(self, number: int, problem: str) -> ConfigurationError:
        where = f"{self.path}, line {number}" if number else f"{self.path}, a line"
        return ConfigurationError(f"{where} {problem}; it is not a record of this tool, or was changed since")


def _key(cell: str) -> int:
    return int.from_bytes(blake2b(cell.encode(), digest_size=8).digest(), "big")


def _facts(planned: Facts, checks: Mapping[str, Check], loaded: list[Any]) -> Facts:
    parity, latency = (checks.get(name) for name in ("parity", "latency"))
    stated = [c.data for c in checks.values()]
    return replace(
        planned,
        outcome=parity.outcome if parity else None,
        parity=parity.parity if parity else None,
        latency=latency.latency if latency else None,
        timed=latency.outcome if latency else None,
        throughput=tuple(row for row in loaded if isinstance(row, dict)),
        artifact=_first(stated, "artifact"),
        runtime=_first(stated, "runtime"),
    )


def _first(stated: list[Mapping[str, Any]], key: str) -> Mapping[str, Any]:
    found = (data.get(key) for data in stated)
    return next((value for value in found if isinstance(value, dict)), {})
