"""The ways of calling a session: in the dtypes it takes, watched, with other memory layouts, from several threads.

Runs in every worker, also under foreign interpreters that have only numpy and a runtime. The script
of a reproduction bundle holds these functions as they stand here (``checks/bundle/files.py``).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    Feed = Mapping[str, np.ndarray]
    Run = Callable[[Feed], Sequence[np.ndarray]]

CONTIGUOUS = "contiguous"
# How the same values may lie in memory; the first is what ``.npy`` files are read as.
LAYOUTS = (CONTIGUOUS, "fortran", "strided", "reversed")


def laid_out(feed: Mapping[str, np.ndarray], layouts: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The same values with the memory layout that ``layouts`` says by name; contiguous where it says none."""
    return {name: _laid_out(array, layouts[name]) if name in layouts else array for name, array in feed.items()}


def _laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    import numpy as np

    if layout == "contiguous" or not array.ndim:
        return array
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "reversed":
        return np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    # Every second element of a wider array, whose others hold something that is easily noticed.
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 1, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def copies(feed: Feed) -> dict[str, np.ndarray]:
    """The values as they are now."""
    return {name: array.copy() for name, array in feed.items()}


def changed(before: Feed, after: Feed) -> list[str]:
    """The names of the arrays that are not the same bits any more."""
    return [name for name, array in before.items() if array.tobytes() != after[name].tobytes()]


def together(run: Run, feeds: Sequence[Feed], rounds: int) -> list[list[list[np.ndarray]]]:
    """What ``run`` gives when a thread per feed calls it at the same moment, ``rounds`` times.

    Shapes: [feed][round][output]; the outputs are copies. Raises: what the first failing call raised.
    """
    import numpy as np

    outputs: list[list[list[np.ndarray]]] = [[] for _ in feeds]
    raised: list[BaseException] = []
    start = threading.Barrier(len(feeds))

    def call(index: int) -> None:
        try:
            for _ in range(rounds):
                feed = copies(feeds[index])  # a call that changes its inputs breaks another law
                start.wait()
                outputs[index].append([np.array(y) for y in run(feed)])
        except threading.BrokenBarrierError:
            return
        except BaseException as error:  # noqa: BLE001 - it is raised again below, in the thread that asked
            raised.append(error)
            start.abort()

    threads = [threading.Thread(target=call, args=(i,), name=f"modelformats-{i}") for i in range(len(feeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
    return outputs
