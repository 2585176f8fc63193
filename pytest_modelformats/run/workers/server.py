"""The worker's side of the border: answers one request after the other.

Runs in every worker, also under foreign interpreters that have only numpy and a runtime,
so nothing but the standard library and this package's own light modules is imported at
the top. Requests and answers are dicts of builtins; tensors travel as ``.npy`` files.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import BY_NAME, ModelFormatsError, OutOfMemory, RunError
from pytest_modelformats.schema import Source, TensorSpec
from pytest_modelformats.schema.contract import ConversionJob, Session, SessionJob
from pytest_modelformats.schema.dtypes import in_dtypes, own_dtypes
from pytest_modelformats.schema.plain import plain
from pytest_modelformats.schema.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

# What runtimes say when an allocation fails without a MemoryError of Python's own.
_OUT_OF_MEMORY_WORDS = ("can't allocate memory", "bad_alloc", "out of memory", "Failed to allocate memory", "bad alloc")


def read_feed(feed: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read the tensors that a feed names by file; object arrays are refused."""
    import numpy as np

    return {name: np.load(path, allow_pickle=False) for name, path in feed.items()}


def write_arrays(arrays: list[np.ndarray], folder: str) -> list[str]:
    """Write arrays as ``0.npy``, ``1.npy`` …; return their paths in order."""
    import numpy as np

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, array in enumerate(arrays):
        path = target / f"{index}.npy"
        np.save(path, np.asarray(array), allow_pickle=False)
        paths.append(str(path))
    return paths


def _specs(data: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec.from_json(item) for item in data)


class Server:
    """Holds the opened sessions of one worker and answers requests about them."""

    def __init__(self, *, alone: bool = False) -> None:
        """Start with no session; ``alone`` says that nobody else's objects live in this process."""
        self._alone = alone
        self._sessions: dict[int, Session] = {}
        self._first_run_ns: dict[int, int] = {}
        self._blocks: dict[int, Any] = {}
        # The inputs that a session takes in another float dtype than the source's, by name.
        self._dtypes: dict[int, dict[str, str]] = {}
        self._next = 0

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request; an exception becomes an answer with ``error`` in it."""
        arguments = dict(request)
        operation = arguments.pop("op")
        try:
            return {"ok": True, **getattr(self, f"op_{operation}")(**arguments)}
        except MemoryError:
            return _failure("OutOfMemory", "the worker reached its memory limit (--mf-memory)")
        except SystemExit as error:
            return _failure("WorkerCrashed", f"'{operation}' called sys.exit({error.code!r})")
        except Exception as error:  # noqa: BLE001 - the border of a cell: whatever a runtime raises becomes its answer
            return _describe_failure(error)

    def op_preload(self, modules: list[str]) -> dict[str, Any]:
        """Import modules ahead of their use; one that is missing or broken is not an error yet."""
        versions = {}
        for name in modules:
            versions[name] = _import(name)
        return {"versions": versions}

    def op_describe(self, module: str, source: dict[str, Any]) -> dict[str, Any]:
        """Load a source and say what it is."""
        description = importlib.import_module(module).describe(Source.from_json(source))
        return {"description": description.to_json()}

    def op_samples(
        self, data: str, specs: list[dict[str, Any]], search_path: list[str], limit: int, folder: str
    ) -> dict[str, Any]:
        """Load real samples where the user's or the fixture's code says, and write them as files."""
        from pytest_modelformats.source.samples import load_samples

        samples = load_samples(data, _specs(specs), tuple(search_path), limit)
        feeds = []
        for index, feed in enumerate(samples.feeds):
            paths = write_arrays(list(feed.values()), f"{folder}/{index}")
            feeds.append(dict(zip(feed, paths, strict=True)))
        labels = [] if samples.labels is None else write_arrays([samples.labels], f"{folder}/labels")
        return {
            "feeds": feeds,
            "rows": samples.rows,
            "origin": samples.origin,
            "labels": labels[0] if labels else "",
        }

    def op_evaluate(
        self,
        module: str,
        source: dict[str, Any],
        feeds: list[dict[str, str]],
        precision: str,
        folder: str,
        again: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Run the source in its own framework at a precision; outputs as files, per feed.

        ``again`` is an input that is run twice before the others; ``random`` says which output differs then. It is
        evaluated on its own: how the others are evaluated is the same at every precision, and must not hang on it.
        """
        from pytest_modelformats.run.workers import repeating

        evaluate = importlib.import_module(module).evaluate
        known = Source.from_json(source)
        random = ""
        if again:
            twice, _ = evaluate(known, [read_feed(again)] * 2, precision)
            random = repeating.differing(*twice)
        outputs, method = evaluate(known, [read_feed(feed) for feed in feeds], precision)
        paths = [write_arrays(list(items), f"{folder}/{index}") for index, items in enumerate(outputs)]
        return {"outputs": paths, "method": method, "random": random}

    def op_convert(self, entry: str, job: dict[str, Any]) -> dict[str, Any]:
        """Convert, then run the format's own checker on what was written."""
        conversion = ConversionJob(
            source=Source.from_json(job["source"]),
            input=Path(job["input"]),
            output=Path(job["output"]),
            input_precision=job["input_precision"],
            precision=job["precision"],
            inputs=_specs(job["inputs"]),
            outputs=_specs(job["outputs"]),
            example=read_feed(job["example"]),
            options=job["options"],
        )
        started = time.perf_counter_ns()
        facts = resolve(entry)(conversion)
        convert_ns = time.perf_counter_ns() - started
        importlib.import_module(job["checker"]).check(conversion.output)
        return {"facts": facts or {}, "convert_ns": convert_ns}

    def op_open(self, entry: str, job: dict[str, Any], cores: int = 0) -> dict[str, Any]:
        """Open an artifact; say what the runtime states of it and what opening cost.

        ``cores`` says how many the runtime is to see, where they are more than its threads.
        """
        from pytest_modelformats.measure.conditions import give_back, pinned_to_cores
        from pytest_modelformats.measure.sampling import memory

        if not self._sessions:
            if self._alone:
                _set_apart()
            # What the sessions before have left behind would be taken by this one, and seem to cost nothing.
            give_back()
        idle = memory()
        session_job = SessionJob(
            source=Source.from_json(job["source"]),
            artifact=Path(job["artifact"]),
            format=job["format"],
            artifact_precision=job["artifact_precision"],
            precision=job["precision"],
            device=job["device"],
            threads=job["threads"],
            inputs=_specs(job["inputs"]),
            outputs=_specs(job["outputs"]),
            options=job["options"],
        )
        open_session = resolve(entry)
        # On the cores that it will be timed on: a runtime (OpenVINO) looks at them when it sets up its threads.
        with pinned_to_cores(max(session_job.threads, cores)):
            started = time.perf_counter_ns()
            session = open_session(session_job)
            load_ns = time.perf_counter_ns() - started
        self._next += 1
        self._sessions[self._next] = session
        self._dtypes[self._next] = own_dtypes(
            [(s.name, s.dtype) for s in session_job.inputs],
            [(s.name, s.dtype) for s in session.inputs],
            session_job.precision,
        )
        return {
            "session": self._next,
            "inputs": [spec.to_json() for spec in session.inputs],
            "outputs": [spec.to_json() for spec in session.outputs],
            "statement": dict(session.statement),
            "load_ns": load_ns,
            "idle_rss_bytes": idle.get("rss_bytes"),
        }

    def op_run(
        self,
        session: int,
        feed: dict[str, str],
        folder: str,
        layouts: dict[str, str] | None = None,
        *,
        watch: bool = False,
    ) -> dict[str, Any]:
        """Run once; outputs as files in the runtime's order. ``watch`` tells which inputs the call has changed."""
        from pytest_modelformats.run.workers import calls

        arrays = calls.laid_out(self._fed(session, feed), layouts or {})
        before = calls.copies(arrays) if watch else {}
        opened = self._sessions[session]
        started = time.perf_counter_ns()
        try:
            outputs = opened.run(arrays)
        except (ModelFormatsError, MemoryError):
            raise
        except Exception as error:
            raise _run_failure(error) from error
        elapsed = time.perf_counter_ns() - started
        self._first_run_ns.setdefault(session, elapsed)
        return {
            "outputs": write_arrays(list(outputs), folder),
            "first_run_ns": self._first_run_ns[session],
            "statement": dict(opened.statement),
            "changed": calls.changed(before, arrays),
        }

    def op_run_together(self, session: int, feeds: list[dict[str, str]], rounds: int, folder: str) -> dict[str, Any]:
        """Call one session from a thread per feed, all at once, several times; outputs as files [feed][round]."""
        from pytest_modelformats.run.workers import calls

        try:
            outputs = calls.together(self._sessions[session].run, [self._fed(session, f) for f in feeds], rounds)
        except (ModelFormatsError, MemoryError):
            raise
        except Exception as error:
            raise _run_failure(error) from error
        return {
            "outputs": [
                [write_arrays(arrays, f"{folder}/{f}-{r}") for r, arrays in enumerate(of_feed)]
                for f, of_feed in enumerate(outputs)
            ]
        }

    def op_execution(self, session: int, feed: dict[str, str]) -> dict[str, Any]:
        """What the runtime states of what it executes for a feed; empty where the session has no say."""
        state = getattr(self._sessions[session], "execution", None)
        return {"execution": {} if state is None else dict(state(self._fed(session, feed)))}

    def op_measure(
        self, session: int, feed: dict[str, str], budget_s: float, max_samples: int, threads: int, device: str = "cpu"
    ) -> dict[str, Any]:
        """Sample the latency of a session that is open; nothing else runs meanwhile."""
        from pytest_modelformats.run.workers.latency import measure

        answer = measure(
            self._sessions[session],
            self._fed(session, feed),
            budget_s=budget_s,
            max_samples=max_samples,
            threads=threads,
            device=device,
        )
        return {**answer, "first_run_ns": self._first_run_ns.setdefault(session, answer["first_run_ns"])}

    def op_keep_busy(
        self, session: int, feeds: list[dict[str, str]], mode: str, budget_s: float, threads: int, folder: str
    ) -> dict[str, Any]:
        """Keep a session busy in one mode: the samples, and outputs by number of the feed, as files."""
        from pytest_modelformats.run.workers import throughput

        arrays, opened = [self._fed(session, feed) for feed in feeds], self._sessions[session]
        try:
            if mode == "sync":
                return {
                    "taken": throughput.sequential(opened, arrays[0], budget_s=budget_s, threads=threads),
                    "answers": [],
                }
            run = throughput.by_threads if mode == "threads" else throughput.asynchronous
            taken, answers = run(opened, arrays, budget_s=budget_s, threads=threads)
        except (ModelFormatsError, MemoryError):
            raise
        except Exception as error:
            raise _run_failure(error) from error
        files = [[feed, write_arrays(arrays, f"{folder}/{i}")] for i, (feed, arrays) in enumerate(answers)]
        return {"taken": taken, "answers": files}

    def op_block(
        self, session: int, feed: dict[str, str], seconds: float, at_least: int, threads: int, warmup_s: float
    ) -> dict[str, Any]:
        """Time one block of calls; the first one binds, pins the process for good and warms up, and tells memory."""
        from pytest_modelformats.measure.conditions import give_back
        from pytest_modelformats.measure.sampling import memory, reset_peak
        from pytest_modelformats.run.workers.blocks import Blocks

        first = session not in self._blocks
        if first:
            # As in measuring.measure: what opening has freed is not what the session needs.
            give_back()
            reset_peak()
            opened = self._sessions[session]
            self._blocks[session] = Blocks(lambda: opened.bind(self._fed(session, feed)), threads, warmup_s)
        answer = dict(self._blocks[session].block(seconds, at_least))
        return answer | ({"memory": memory()} if first else {})

    def op_call(self, entry: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Answer with what a function of this package says, asked by keyword."""
        return dict(resolve(entry)(**arguments))

    def op_close(self, session: int) -> dict[str, Any]:
        """Close a session and give its memory back to the system as far as the allocator lets go."""
        import gc

        opened = self._sessions.pop(session, None)
        self._dtypes.pop(session, None)
        blocks = self._blocks.pop(session, None)
        if blocks is not None:
            blocks.close()
        del blocks
        self._first_run_ns.pop(session, None)
        if opened is not None:
            opened.close()
        del opened
        gc.collect()
        return {}

    def _fed(self, session: int, feed: Mapping[str, str]) -> dict[str, np.ndarray]:
        """A feed as the session is given it: everything that is run or timed goes through here."""
        return in_dtypes(read_feed(feed), self._dtypes[session])


def _import(name: str) -> str:
    """Import a module and return its version, or why it cannot be imported."""
    try:
        module = importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - a broken import is reported by the cell that needs it
        return f"not importable: {error}"
    return str(getattr(module, "__version__", ""))


def _set_apart() -> None:
    """What lives now outlives the session to come, so the collector need not look at it again.

    With torch's compiler imported that is a million objects: 0.3 s at every later collection.
    """
    import gc

    gc.collect()
    gc.freeze()


def _failure(name: str, message: str, trace: str = "") -> dict[str, Any]:
    return {"ok": False, "error": name, "message": message, "traceback": trace}


def _run_failure(error: Exception) -> ModelFormatsError:
    text = f"{type(error).__name__}: {error}"
    if any(words in text for words in _OUT_OF_MEMORY_WORDS):
        return OutOfMemory(text)
    return RunError(f"the runtime raised {text[:600]}")


def _describe_failure(error: Exception) -> dict[str, Any]:
    import traceback

    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-8000:]
    if isinstance(error, ModelFormatsError):
        name = next((k for k in (c.__name__ for c in type(error).__mro__) if k in BY_NAME), "ModelFormatsError")
        return _failure(name, str(error), trace)
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, (ModuleNotFoundError, ImportError)):
        return _failure("MissingDependency", text, trace)
    if any(words in text for words in _OUT_OF_MEMORY_WORDS):
        return _failure("OutOfMemory", text[:600], trace)
    return _failure("", text[:600], trace)


def serve(channel: Any) -> None:
    """Answer the requests of a channel until it is closed."""
    server = Server(alone=True)
    for request in channel:
        channel.send(plain(server.handle(request)))
