"""The worker's side of throughput: one call after the other, a thread per request, or the runtime's asynchronous mode.

What is timed is also looked at: every way of running first gives its outputs for inputs that
differ from request to request and from round to round, and gives them again when it has been
kept busy. Whoever asked compares them with those of one call before a figure is believed.
"""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import RunError, Unsupported
from pytest_modelformats.measure import machine_state
from pytest_modelformats.measure.conditions import difference, pinned_to_cores, readings, without_collector
from pytest_modelformats.measure.sampling import sample
from pytest_modelformats.run.workers.calls import copies, together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from pytest_modelformats.schema.contract import Feed, Request, Session

    # (number of the feed, outputs)
    Answers = list[tuple[int, list[np.ndarray]]]

ROUNDS = 2
WARMUP_SHARE = 0.25
# So many requests each slot gives at least, however long they take: what six samples are for a median.
FEWEST_PER_REQUEST = 3
# A request is lost that has not come back in this time and twenty times as long as all of them take one by one.
PATIENCE_S = 10.0
PATIENCE_CALLS = 20


def sequential(session: Session, feed: Feed, *, budget_s: float, threads: int) -> dict[str, Any]:
    """Samples of one call after the other."""
    with pinned_to_cores(threads):
        call = session.bind(feed)
        call()
        return sample(call, budget_s=budget_s, threads=threads)


def by_threads(
    session: Session, feeds: Sequence[Feed], *, budget_s: float, threads: int
) -> tuple[dict[str, Any], Answers]:
    """A thread per feed calls one session, each with inputs that it has handed over once."""
    number = len(feeds)
    with without_collector(), pinned_to_cores(threads * number) as pinned:
        answers = _answers(together(session.run, feeds, ROUNDS))
        taken = _timed_threads(session, feeds, budget_s, pinned)
        answers += _answers(together(session.run, feeds, 1))
    return taken, answers


def _answers(outputs: Sequence[Sequence[list[np.ndarray]]]) -> Answers:
    return [(number, one) for number, of_feed in enumerate(outputs) for one in of_feed]


def _timed_threads(session: Session, feeds: Sequence[Feed], budget_s: float, pinned: Sequence[int]) -> dict[str, Any]:
    spans: list[list[tuple[int, int]]] = [[] for _ in feeds]
    raised: list[BaseException] = []
    ready = threading.Barrier(len(feeds) + 1)
    go = threading.Barrier(len(feeds) + 1)

    def work(index: int) -> None:
        try:
            call = session.bind(copies(feeds[index]))
            ready.wait()
            _until(call, WARMUP_SHARE * budget_s, [])
            go.wait()
            _until(call, (1 - WARMUP_SHARE) * budget_s, spans[index])
        except threading.BrokenBarrierError:
            return
        except BaseException as error:  # noqa: BLE001 - it is raised again below, in the thread that asked
            raised.append(error)
            ready.abort()
            go.abort()

    workers = [threading.Thread(target=work, args=(i,), name=f"modelformats-{i}") for i in range(len(feeds))]
    for worker in workers:
        worker.start()
    before, started = readings(pinned), time.perf_counter_ns()
    try:
        ready.wait()
        go.wait()
        before, started = readings(pinned), time.perf_counter_ns()
    except threading.BrokenBarrierError:
        pass  # one of them has failed, and says why below
    for worker in workers:
        worker.join()
    if raised:
        raise raised[0]
    return _figure(spans, started, before, pinned)


def _until(call: Callable[[], object], seconds: float, spans: list[tuple[int, int]]) -> None:
    clock = time.perf_counter_ns
    deadline = clock() + int(seconds * 1e9)
    count = 0
    while count < FEWEST_PER_REQUEST or clock() < deadline:
        began = clock()
        call()
        spans.append((began, clock()))
        count += 1


def asynchronous(
    session: Session, feeds: Sequence[Feed], *, budget_s: float, threads: int, patience_s: float = PATIENCE_S
) -> tuple[dict[str, Any], Answers]:
    """As many requests in flight as there are feeds, by the runtime's own asynchronous mode.

    Raises: Unsupported where the session has none; RunError where a request does not come back, or comes back twice.
    """
    start = getattr(session, "asynchronous", None)
    if start is None:
        raise Unsupported("its backend has no asynchronous mode here")
    number = len(feeds)
    began = time.perf_counter_ns()
    session.run(feeds[0])
    patience_s += PATIENCE_CALLS * number * (time.perf_counter_ns() - began) / 1e9
    with without_collector(), pinned_to_cores(threads * number) as pinned:
        mode = start(number)
        try:
            requests = list(mode.requests)
            if len(requests) != number:
                msg = f"{number} requests were asked for, and the asynchronous mode has {len(requests)}"
                raise RunError(msg)
            answers = _rounds(requests, feeds, ROUNDS, patience_s)
            flight = _Flight(requests, patience_s)
            flight.keep_up(WARMUP_SHARE * budget_s)
            flight = _Flight(requests, patience_s)
            before, started = readings(pinned), time.perf_counter_ns()
            flight.keep_up((1 - WARMUP_SHARE) * budget_s)
            taken = _figure(flight.spans, started, before, pinned)
            answers += _rounds(requests, feeds, ROUNDS, patience_s)
        finally:
            mode.close()
    return {**taken, "stated": dict(mode.statement)}, answers


def _rounds(requests: Sequence[Request], feeds: Sequence[Feed], rounds: int, patience_s: float) -> Answers:
    """What every request gives for one feed after the other, all of them in flight together.

    The outputs are taken at the moment at which they are said to be complete.
    """
    answers: Answers = []
    for shift in range(rounds):
        for index, request in enumerate(requests):
            request.bind(copies(feeds[(index + shift) % len(feeds)]))
        flight = _Flight(requests, patience_s, take=True)
        flight.keep_up(0.0, at_least=1)
        answers += [((index + shift) % len(feeds), one) for index, one in flight.taken]
    return answers


class _Flight:
    """Requests that are started again as soon as they come back, each completion counted once."""

    def __init__(self, requests: Sequence[Request], patience_s: float, *, take: bool = False) -> None:
        self._requests = requests
        self._patience_s = patience_s
        self._take = take
        self._finished: SimpleQueue[tuple[int, int, int, str]] = SimpleQueue()
        self._serials = [0] * len(requests)
        self._started = [0] * len(requests)
        self.spans: list[list[tuple[int, int]]] = [[] for _ in requests]
        self.taken: list[tuple[int, list[np.ndarray]]] = []

    def keep_up(self, seconds: float, at_least: int = FEWEST_PER_REQUEST) -> None:
        """Keep all of them in flight for so long; returns when the last one is back."""
        deadline = time.perf_counter_ns() + int(seconds * 1e9)
        for index in range(len(self._requests)):
            self._start(index)
        left = len(self._requests)
        while left:
            index, ended = self._next(left)
            self.spans[index].append((self._started[index], ended))
            if len(self.spans[index]) < at_least or time.perf_counter_ns() < deadline:
                self._start(index)
            else:
                left -= 1

    def _start(self, index: int) -> None:
        self._serials[index] += 1
        serial = self._serials[index]

        def done(error: str = "") -> None:
            ended = time.perf_counter_ns()
            if self._take and not error:
                self.taken.append((index, self._requests[index].outputs()))
            self._finished.put((index, serial, ended, error))

        self._started[index] = time.perf_counter_ns()
        self._requests[index].start(done)

    def _next(self, left: int) -> tuple[int, int]:
        try:
            index, serial, ended, error = self._finished.get(timeout=self._patience_s)
        except Empty:
            msg = (
                f"the asynchronous mode lost {left} of {len(self._requests)} requests: "
                f"they did not come back within {self._patience_s:g} s"
            )
            raise RunError(msg) from None
        if error:
            msg = f"the asynchronous mode failed: {error}"
            raise RunError(msg)
        if serial != self._serials[index] or len(self.spans[index]) >= serial:
            raise RunError("the asynchronous mode said twice that one request was complete")
        return index, ended


def _figure(
    spans: Sequence[Sequence[tuple[int, int]]], started: int, before: dict[str, Any], pinned: Sequence[int]
) -> dict[str, Any]:
    """Requests over wall time, from the start of the first to the end of the last one."""
    ended = max(end for of_one in spans for _, end in of_one)
    after = readings(pinned)
    ends = sorted(end for of_one in spans for _, end in of_one)
    middle = started + (ended - started) // 2
    return {
        "samples_ns": [end - began for began, end in sorted(span for of_one in spans for span in of_one)],
        "wall_s": (ended - started) / 1e9,
        "completed": len(ends),
        "completed_first_half": sum(end <= middle for end in ends),
        "pinned": list(pinned),
        "state": machine_state.state(pinned),
        **difference(before, after, len(pinned)),
    }
