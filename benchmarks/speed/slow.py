"""A backend with a planted slow-down: the real session, and after each call a spin for a share of that call's time."""

from __future__ import annotations

import importlib
import time
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Slowed:
    """A session whose bound call takes longer by ``share`` of its own time; what it computes is untouched."""

    def __init__(self, session: Any, share: float) -> None:
        """Stand in front of an opened session."""
        self.inputs, self.outputs, self.statement = session.inputs, session.outputs, session.statement
        self.run, self.close = session.run, session.close
        self._session, self._share = session, share

    def bind(self, feed: Mapping[str, Any]) -> Callable[[], object]:
        """The session's own call, and then a spin, less what standing in front of it costs."""
        call = self._session.bind(feed)
        return _spinning(call, self._share, _cost())


def _spinning(call: Callable[[], object], share: float, less_ns: float) -> Callable[[], object]:
    clock = time.perf_counter_ns

    def slowed() -> object:
        began = clock()
        answer = call()
        ended = clock()
        until = ended + (ended - began) * share - less_ns
        while clock() < until:
            pass
        return answer

    return slowed


def _cost() -> float:
    """What the layer takes by itself around a call that does nothing, in nanoseconds: half a percent of 40 µs."""

    def nothing() -> object:
        return None

    def median_of(call: Callable[[], object]) -> float:
        taken = []
        for _ in range(5000):
            began = time.perf_counter_ns()
            call()
            taken.append(time.perf_counter_ns() - began)
        return median(taken)

    return median_of(_spinning(nothing, 0.0, 0.0)) - median_of(nothing)


def open_session(job: Any) -> Slowed:
    """Open what ``options["planted"]`` names, and slow it down."""
    options = dict(job.options)
    planted = options.pop("planted")
    module, _, function = planted["entry"].partition(":")
    session = getattr(importlib.import_module(module), function)(replace(job, options=options))
    return Slowed(session, planted["share"])
