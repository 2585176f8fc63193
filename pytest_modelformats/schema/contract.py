"""What an extension provides: three small protocols, all called inside a worker process.

A format is a module (``FormatModule``), a converter one function (``Convert``), a backend
one function (``OpenSession``) that returns a ``Session``. Heavy libraries are imported
inside these functions, never at the top of the file: the declarations beside them are
read by the planner in the pytest process, which must stay light.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.schema.model import Description, Source
    from pytest_modelformats.schema.tensor import TensorSpec

    Feed = Mapping[str, np.ndarray]

# What a format's ``evaluate`` is asked for where a file is to be taken at its word: float64 in place of fp32, and every
# cast to a narrower type kept.
AS_WRITTEN = "as-written"


@dataclass(frozen=True, slots=True)
class ConversionJob:
    """What a converter is given.

    ``input`` is the artifact to convert (for the first step of a chain, the source's
    file; ``source`` says how to load it). ``output`` is a path with the target format's
    suffix in an empty folder: everything the converter leaves in that folder is part of
    the artifact. ``inputs`` and ``outputs`` are the contract: their names must be given to
    whatever the format calls inputs and outputs, their symbolic dimensions stay dynamic.
    ``example`` is a feed with every symbolic dimension at 2 or more.
    ``options`` holds the values of the options that the converter declared.
    """

    source: Source
    input: Path
    output: Path
    input_precision: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    example: Feed
    options: Mapping[str, Any] = field(default_factory=dict)


class Convert(Protocol):
    """Write ``job.output``; return plain facts about what was written (such as the opset got).

    Raises: Unsupported (names the operator or feature), ConvertError.
    """

    def __call__(self, job: ConversionJob, /) -> dict[str, Any]:
        """Convert."""
        ...


@dataclass(frozen=True, slots=True)
class SessionJob:
    """What a backend is given to open.

    ``artifact`` is the file (for the format ``pytorch``, the source's own, to be loaded
    through ``source``). ``artifact_precision`` is what the file holds, ``precision`` what
    is to run. ``inputs`` and ``outputs`` are the contract; where the artifact has no names
    of its own, ``inputs`` gives the order in which a feed is passed.
    """

    source: Source
    artifact: Path
    format: str
    artifact_precision: str
    precision: str
    device: str
    threads: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


class Session(Protocol):
    """An opened artifact.

    ``inputs`` and ``outputs`` are what the *runtime* states, in its order: name "" and shape
    ``None`` where it does not say. ``statement`` is what the runtime says about how it runs
    (execution provider, precision, optimisation level), plain values only.

    A session may also have ``execution(feed) -> dict``: what the runtime states of every
    operator that it executes for a feed, as ``execution.tally`` writes it. It is asked once
    per cell, never while something is timed, and a session without it makes no claim.

    Two more are optional. ``asynchronous(requests: int) -> Asynchronous`` opens the runtime's own way
    of having so many requests in flight at once, and raises Unsupported where it has none in this
    configuration. ``phases(feed) -> dict`` times the copy to the device, the computation and the
    copy back apart: ``host_to_device_ns``, ``compute_ns``, ``device_to_host_ns``, {} where there is
    no such split.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    statement: Mapping[str, Any]

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Run once; outputs as numpy arrays of their own dtype (bfloat16 as float32), in the runtime's order."""
        ...

    def bind(self, feed: Feed) -> Callable[[], object]:
        """Hand the inputs over once; the returned call is what is timed.

        The span is the same for every backend: from inputs that are already in the
        runtime's own tensors to outputs complete in the runtime's own tensors, on a GPU
        including the synchronisation.
        """
        ...

    def close(self) -> None:
        """Free what the session holds."""
        ...


class Request(Protocol):
    """One of several requests that a runtime has in flight at once."""

    def bind(self, feed: Feed) -> None:
        """Hand the inputs over; every later start uses them."""
        ...

    def start(self, done: Callable[[str], None]) -> None:
        """Return at once; ``done`` is called once, from any thread: "" when the outputs are complete, else why not."""
        ...

    def outputs(self) -> list[np.ndarray]:
        """Copies of what the outputs hold now, without waiting; also asked from inside ``done``."""
        ...


class Asynchronous(Protocol):
    """The runtime's asynchronous mode, opened for a number of requests.

    ``statement`` says what was set for it (streams, threads, hints), plain values only.
    """

    requests: Sequence[Request]
    statement: Mapping[str, Any]

    def close(self) -> None:
        """Free what it holds."""
        ...


class OpenSession(Protocol):
    """Open ``job.artifact``.

    Raises: Unsupported, NoDevice, RunError.
    """

    def __call__(self, job: SessionJob, /) -> Session:
        """Open."""
        ...


class FormatModule(Protocol):
    """The file of a format.

    ``sniff`` runs in the pytest process on the first 4096 bytes, with the standard library
    only: it returns the source kind if the file is of this format, else ``None``, and
    raises SourceError if it clearly is but is damaged. The other three run in a worker.

    A module may also have ``precision(path)``, with the standard library only: the precision that a source's numbers
    are written down in, ``fp32`` where it is not another one of the format's.

    A module may also have ``stated(path) -> (inputs, metadata)``, with the standard library only: the inputs as the
    file states them and its metadata as text by key, for the plan, which loads nothing.

    A module may also have ``training_nodes(artifact) -> [(operator, name)]``: what of a file runs in training mode.
    The worker that has opened the file is asked, and a reproduction bundle holds the file in which the function
    stands: that imports the standard library alone.
    """

    def sniff(self, path: Path, head: bytes) -> str | None:
        """Return the source kind, or ``None`` if the file is something else."""
        ...

    def describe(self, source: Source) -> Description:
        """Load the source and state its inputs and outputs; raises SourceError, TrustError."""
        ...

    def evaluate(self, source: Source, feeds: Sequence[Feed], precision: str) -> tuple[list[list[np.ndarray]], str]:
        """Run the source in its own framework at ``float64``, a precision's name, or ``AS_WRITTEN`` if it declares so.

        Returns the outputs per feed, and one line that says by which method, with one of the words of
        ``compare/reference.py`` in it. At ``tf32`` the operands of products keep 10 mantissa bits, results are fp32.
        Raises Unsupported where neither the precision nor an estimate of it can be had.
        """
        ...

    def check(self, artifact: Path) -> None:
        """Run the format's own checker on an artifact; raises ConvertError with what it says."""
        ...
