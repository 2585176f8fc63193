"""Sessions that are kept busy: f(x) = 2 x, each call a pause long enough for others to overlap with.

The faithful ones do what they say; the others lose requests, answer early, answer without computing, answer twice,
get slower the more are in flight, or never free what a call took.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from pytest_modelformats.schema.contract import Feed

PAUSE_S = 0.001


def computed(feed: Feed) -> list[np.ndarray]:
    """What the model computes."""
    return [feed["x"] * 2]


@dataclass
class Faithful:
    """Calls may overlap; the asynchronous mode is whatever ``request`` makes."""

    inputs: tuple = ()
    outputs: tuple = ()
    statement: dict = field(default_factory=dict)
    request: Callable[[], Any] | None = None
    pause_s: float = PAUSE_S

    def run(self, feed: Feed) -> list[np.ndarray]:
        time.sleep(self.pause_s)
        return computed(feed)

    def bind(self, feed: Feed) -> Callable[[], object]:
        return lambda: self.run(feed)

    def asynchronous(self, requests: int) -> Mode:
        return Mode([(self.request or Request)() for _ in range(requests)])

    def close(self) -> None:
        """Nothing to free."""


@dataclass
class Mode:
    """An asynchronous mode with its requests."""

    requests: list
    statement: dict = field(default_factory=lambda: {"streams": "a thread per start"})
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class Request:
    """A thread per start computes, keeps the outputs and says so."""

    feed: dict = field(default_factory=dict)
    held: list = field(default_factory=list)
    starts: int = 0

    def bind(self, feed: Feed) -> None:
        self.feed = dict(feed)

    def start(self, done: Callable[[str], None]) -> None:
        self.starts += 1
        threading.Thread(target=self.work, args=(done,), daemon=True).start()

    def work(self, done: Callable[[str], None]) -> None:
        time.sleep(PAUSE_S)
        self.held = computed(self.feed)
        done("")

    def outputs(self) -> list[np.ndarray]:
        return [array.copy() for array in self.held]


class Loses(Request):
    """Every fifth request never comes back."""

    def work(self, done):
        if self.starts % 5:
            super().work(done)


class Early(Request):
    """It is complete, it says, and computes afterwards."""

    def work(self, done):
        done("")
        super().work(lambda _: None)


class Skips(Request):
    """From the second start on it says that it has computed, and has not."""

    def work(self, done):
        if self.starts == 1:
            super().work(done)
        else:
            done("")


class Twice(Request):
    """Every completion is told twice, which would double the figure."""

    def work(self, done):
        super().work(done)
        done("")


class Fails(Request):
    """The runtime says what went wrong."""

    def work(self, done):
        done("device lost")


@dataclass
class SlowerTogether(Faithful):
    """Every call takes as many times as long as there are calls at once, and then some."""

    inside: int = 0

    def run(self, feed):
        self.inside += 1
        for _ in range(self.inside**2):
            time.sleep(self.pause_s)
        self.inside -= 1
        return computed(feed)


@dataclass
class MixesThreads(Faithful):
    """Two calls at once share one buffer for their inputs."""

    buffer: dict = field(default_factory=dict)

    def run(self, feed):
        self.buffer["x"] = feed["x"]
        time.sleep(self.pause_s)
        return computed(self.buffer)


@dataclass
class Leaks(Faithful):
    """Every call keeps what it took."""

    taken: list = field(default_factory=list)
    pause_s: float = 0.0

    def run(self, feed):
        self.taken.append(b"x" * 200_000)
        return computed(feed)


@dataclass
class FillsItsPool(Leaks):
    """The first calls take memory that the later ones use again."""

    def run(self, feed):
        if len(self.taken) < 40:
            return super().run(feed)
        return computed(feed)
