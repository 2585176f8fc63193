"""The nouns of a search: what was found, and what every step of one search needs."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import WorkerTimeout
from pytest_modelformats.run.workers.asking import Asker, write_feed
from pytest_modelformats.schema import PRECISIONS, Environment, PlannedCell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.settings.nouns import Settings

# So much is held at once, and so many results are asked for at once: a runtime plans its memory by its outputs.
CHUNK_BYTES = 16_000_000
CHUNK_TENSORS = 128

# The worker that reads and evaluates graphs: one that hangs or dies takes nothing else with it.
RUNTIME = "localise"

# How a reason starts that is an answer, and no search that came to nothing.
NONE_WRONG = "no operator is wrong"
INTERMEDIATES = "onnx-intermediates"
BISECTION = "bisection"
READING = "onnx-reading"
SIGNAL = "onnx-signal"


@dataclass(frozen=True, slots=True)
class Localised:
    """Where a cell goes wrong, or in ``reason`` why that could not be told.

    Errors are rms errors over each tensor's own rounding noise; ``None`` where they have no number
    (another shape, NaN in other places). ``unforeseen`` is the error that ended the search, where none of our sentences
    says what happened; ``unevaluated`` is what the evaluator lacks where graphs were read and not run.
    ``submodel`` is the faulty part as a model of its own, ``inputs`` and ``expected`` (float64) are ``.npy`` files
    beside it, ``noise`` is what rounding makes of each output (rms, largest); they live as long as the run.
    """

    method: str
    operator: str = ""
    node: str = ""
    module: str = ""
    output: str = ""
    input_error: float | None = None
    output_error: float | None = None
    before: tuple[str, ...] = ()
    nodes_compared: int = 0
    confirmed: bool | None = None
    seconds: float = 0.0
    sentence: str = ""
    how: str = ""
    missing: tuple[str, ...] = ()
    reason: str = ""
    unforeseen: str = ""
    unevaluated: str = ""
    peak_bytes: int | None = None
    submodel: Path | None = None
    inputs: tuple[tuple[str, Path], ...] = ()
    expected: tuple[tuple[str, Path], ...] = ()
    noise: tuple[tuple[str, tuple[float, float]], ...] = ()

    def data(self) -> dict[str, Any]:
        """What a check line carries of it."""
        files = {"submodel", "inputs", "expected", "noise"}
        return {key: value for key, value in asdict(self).items() if key not in files}


@dataclass(slots=True)
class Search:
    """What every step of one search needs; ``ends`` is when its budget does.

    ``truths`` are the source's float64 outputs for ``feed``, where they are not those of the samples; () is unknown.
    """

    stages: Stages
    settings: Settings
    planned: PlannedCell
    ends: float
    feed: Mapping[str, np.ndarray]
    rows: int
    folder: Path
    truths: Sequence[np.ndarray] | None = None

    @property
    def seconds(self) -> float:
        """What is left of the budget; raises WorkerTimeout where nothing is."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise WorkerTimeout("nothing of it was left")
        return left

    @property
    def precision(self) -> str:
        """The precision whose noise counts."""
        return PRECISIONS[self.planned.cell.precision].yardstick

    @property
    def limit(self) -> float:
        """The noise ratio from which on a tensor is wrong."""
        return PRECISIONS[self.planned.cell.precision].limit

    def asker(self) -> Asker:
        """Asks with what is left of the budget as the time-out."""
        return Asker(self.stages.pool, self.seconds, lambda _: None)

    def ask(self, entry: str, *, modules: tuple[str, ...] = ("onnx",), **arguments: Any) -> dict[str, Any]:
        """The answer of a function in the worker; a hang ends with the budget."""
        worker = self.stages.pool.get(Environment(), RUNTIME, modules)
        return worker.request("call", self.seconds, None, entry=entry, arguments=arguments)

    def written(self) -> dict[str, str]:
        """The inputs as files."""
        return write_feed(self.feed, self.folder.parent / f"feed-{digest(self.feed)}")

    def feed_key(self) -> str:
        """Names what belongs to these inputs at this precision."""
        return f"{digest(self.feed)}-{self.precision}"

    def key(self, artifact: Path) -> str:
        """Names the truths of a graph on these inputs at this precision."""
        stat = artifact.stat()
        text = f"{artifact}\0{stat.st_mtime_ns}\0{stat.st_size}\0{digest(self.feed)}\0{self.precision}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest(feed: Mapping[str, np.ndarray]) -> str:
    """A short name for the content of a feed."""
    found = hashlib.sha256()
    for name, array in feed.items():
        found.update(f"{name}{array.dtype}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]
