"""One function per fault of a runtime; each opens the artifact as the faithful one does, but for its fault."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from miniatures import hazards, mini, network
from miniatures.session import MiniatureSession, faithful
from pytest_modelformats.errors import NoDevice, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_modelformats.schema import TensorSpec
    from pytest_modelformats.schema.contract import Feed, SessionJob

LOGITS, GATE, BEST = mini.OUTPUTS


def _with(job: SessionJob, alter: Callable[[list], list], outputs: tuple[TensorSpec, ...] = mini.OUTPUTS):
    """The faithful session with its outputs, and what it states of them, altered."""
    return replace(faithful(job), alter=lambda results, _: alter(results), outputs=outputs)


def _logits(job: SessionJob, alter: Callable[[np.ndarray], np.ndarray]) -> MiniatureSession:
    return _with(job, lambda results: [alter(results[0]), *results[1:]])


# --- the interface


def drops_output(job):
    """The last output is not there."""
    return _with(job, lambda results: results[:2], (LOGITS, GATE))


def drops_output_silently(job):
    """The last output is stated and does not come."""
    return _with(job, lambda results: results[:2])


def adds_output(job):
    """There is an output too many."""
    return _with(job, lambda results: [*results, results[0]], (*mini.OUTPUTS, replace(LOGITS, name="hidden")))


def swaps_outputs(job):
    """Two outputs of one shape and dtype hold each other's values, under their own names."""
    return _with(job, lambda results: [results[1], results[0], results[2]])


def reorders_outputs(job):
    """Two outputs change places, name and values together."""
    return _with(job, lambda results: [results[1], results[0], results[2]], (GATE, LOGITS, BEST))


def renames_output(job):
    """An output has another name."""
    return _with(job, list, (LOGITS, replace(GATE, name="Sigmoid_0"), BEST))


def wrong_shape(job):
    """An output has a dimension too many."""
    return _logits(job, lambda y: y[:, None])


def broadcastable_shape(job):
    """An output has one column, which numpy would compare with all seven."""
    return _logits(job, lambda y: y[:, :1])


def int64_to_int32(job):
    """Integers come out narrower, as many runtimes have it."""
    import numpy as np

    narrow = (LOGITS, GATE, replace(BEST, dtype="int32"))
    return _with(job, lambda results: [*results[:2], results[2].astype(np.int32)], narrow)


def int64_to_int32_silently(job):
    """Integers come out narrower, and the runtime states that they do not."""
    import numpy as np

    return _with(job, lambda results: [*results[:2], results[2].astype(np.int32)])


def _at_two(specs):
    return tuple(replace(s, shape=(2, *s.shape[1:])) for s in specs)


def fixes_batch(job):
    """The batch is fixed at the size of the example: others are refused."""

    def alter(results: list) -> list:
        if len(results[0]) != 2:
            raise RuntimeError(f"Got invalid dimensions for input: x, index: 0 Got: {len(results[0])} Expected: 2")
        return results

    return replace(_with(job, alter, _at_two(mini.OUTPUTS)), inputs=_at_two(mini.INPUTS))


def bakes_batch(job):
    """A reshape has the size of the example: so many rows come out, whatever goes in."""
    return _with(job, lambda results: [y[:2] for y in results], _at_two(mini.OUTPUTS))


def states_a_fixed_batch(job):
    """The batch is stated to be fixed and is not: what comes out is right."""
    return replace(_with(job, list, _at_two(mini.OUTPUTS)), inputs=_at_two(mini.INPUTS))


# --- the numbers


def off_by_one_unit(job):
    """Every float is off by one unit in the last place: that is what rounding does, so it is right."""
    import numpy as np

    return _with(job, lambda results: [*(np.nextafter(y, np.float32(np.inf)) for y in results[:2]), results[2]])


def off_by_fifty_units(job):
    """Every logit is off by fifty units in the last place: rounding does not explain that."""
    import numpy as np

    return _logits(job, lambda y: y + 50 * np.spacing(y))


def nan_in_one_element(job):
    """One element is no number."""
    return _logits(job, lambda y: _put(y, float("nan")))


def infinity_in_one_element(job):
    """One element is infinite."""
    return _logits(job, lambda y: _put(y, float("-inf")))


def one_element_wrong(job):
    """One element is off by as much as 0.01 % of it."""
    return _logits(job, lambda y: _put(y, y[-1, -1] * 1.0001))


def clips_large_inputs(job):
    """Inputs beyond 8 are clipped: four times what the largest of the ordinary samples is."""
    session = faithful(job)

    def alter(results: list, feed: Feed) -> list:
        return network.forward(session.model, feed["x"].clip(-8, 8), job.precision, backwards=True)

    return replace(session, alter=alter)


def is_slightly_wrong(job):
    """The logits are off by 5e-7 of themselves: about three times the noise, which rounding may do for once."""
    return _logits(job, lambda y: y * (1 + 5e-7))


def _put(y, value):
    y[-1, -1] = value
    return y


def constant_output(job):
    """The logits are their own mean, everywhere."""
    import numpy as np

    return _logits(job, lambda y: np.full_like(y, y.mean()))


def ignores_input(job):
    """Every row is the first row."""
    import numpy as np

    return _logits(job, lambda y: np.repeat(y[:1], len(y), 0))


def wrong_integer(job):
    """One of the integers is off by one."""

    def alter(results: list) -> list:
        results[2][-1] += 1
        return results

    return _with(job, alter)


def wrong_for_odd_batches(job):
    """A kernel that works on two rows at a time forgets the last one of an odd batch."""

    def alter(results: list) -> list:
        odd = len(results[0]) % 2 and len(results[0]) > 1
        return [_repeated(y) if odd else y for y in results]

    return _with(job, alter)


def _repeated(y):
    y[-1] = y[-2]
    return y


def remembers_last_input(job):
    """The second of two runs answers for the input of the first."""
    state: dict[str, Feed] = {}

    def stale(results: list, feed: Feed) -> list:
        same = state.get("shape") == feed["x"].shape and "results" in state
        state.update(shape=feed["x"].shape, results=state["results"] if same else results)
        return state["results"]

    return replace(faithful(job), alter=stale)


_opened: Counter[str] = Counter()


def differs_in_second_session(job):
    """What an autotuner picks in a second session is another kernel, and that one is wrong."""
    _opened["differs_in_second_session"] += 1
    wrong = _opened["differs_in_second_session"] > 1
    return _logits(job, lambda y: y * 1.001 if wrong else y)


# --- the laws: right on every sample that is run alone, in its order, in one thread


def mixes_rows_by_order(job):
    """A kernel that sorts rows by length puts the ends back wrongly when the first one is the longest.

    The samples of seed 0 never are: only rows in another order show it.
    """

    def alter(results: list, feed: Feed) -> list:
        if feed["x"][0].sum() > feed["x"][-1].sum():
            for y in results:
                y[[0, -1]] = y[[-1, 0]]
        return results

    return replace(faithful(job), alter=alter)


def keeps_largest_input(job):
    """The quantiser of the path for small batches keeps the largest input it has ever seen, and is coarser ever after.

    No sample is larger than 3, and stress rows come eight at once; a small call with larger ones spoils what follows.
    """
    seen = [0.0]

    def alter(results: list, feed: Feed) -> list:
        spoilt = seen[0] > 6
        if len(feed["x"]) < 4:
            seen[0] = max(seen[0], float(abs(feed["x"]).max()))
        return [results[0] * 1.001, *results[1:]] if spoilt else results

    return replace(faithful(job), alter=alter)


def writes_its_input(job):
    """The first layer works in place, in the caller's own array; the results are right."""

    def alter(results: list, feed: Feed) -> list:
        feed["x"][:] *= 2
        return results

    return replace(faithful(job), alter=alter)


class SharedBuffer(MiniatureSession):
    """Every call copies its input into one buffer, and computes from it a moment later."""

    buffer: dict[int, np.ndarray]

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Run once."""
        rows = len(feed["x"])
        self.buffer = {**getattr(self, "buffer", {}), rows: feed["x"]}
        time.sleep(0.005)
        return super().run({"x": self.buffer[rows]})


def shares_a_buffer(job):
    """Right for one call at a time; of calls at the same time, one gets another's result."""
    alone = faithful(job)
    return SharedBuffer(alone.model, alone.precision, statement=alone.statement)


takes_one_call_at_a_time = shares_a_buffer


def differs_with_threads(job):
    """A reduction that is split among threads loses the seams."""
    return _logits(job, lambda y: y * 1.001 if job.threads > 1 else y)


# --- the precision


def claims_fp16_and_runs_fp32(job):
    """Asked for fp16, and it computes in fp32."""
    return replace(faithful(job), precision="fp32")


def claims_fp32_and_runs_bf16(job):
    """Asked for fp32, and it computes in bf16."""
    return replace(faithful(job), precision="bf16")


def claims_fp32_and_runs_tf32(job):
    """Asked for fp32, and its matrix unit rounds the operands to TF32."""
    return replace(faithful(job), precision="tf32")


def claims_fp32_and_runs_fp16(job):
    """Asked for fp32, and it computes in fp16, whose noise is nearly TF32's."""
    return replace(faithful(job), precision="fp16")


def claims_tf32_and_runs_fp32(job):
    """Asked for TF32, and it computes in fp32."""
    return replace(faithful(job), precision="fp32")


def claims_tf32_and_runs_bf16(job):
    """Asked for TF32, and it computes in bf16."""
    return replace(faithful(job), precision="bf16")


def claims_fp16_and_runs_bf16(job):
    """Asked for fp16, and it computes in bf16."""
    return replace(faithful(job), precision="bf16")


# --- what it says of itself


def admits_bf16_and_runs_it_on_large_inputs(job):
    """It says bf16 of every operator; the samples, none of which is beyond 8, do not show it."""
    session = faithful(job)

    def alter(results: list, feed: Feed) -> list:
        coarse = network.forward(session.model, feed["x"], "bf16", backwards=True)
        large = np.abs(feed["x"]).max(axis=1) > 8
        return [np.where(large.reshape(-1, *[1] * (y.ndim - 1)), c, y) for y, c in zip(results, coarse, strict=True)]

    return replace(session, alter=alter, stated_precision="bf16")


def states_fp32_and_runs_bf16(job):
    """It says fp32 of every operator, and computes in bf16."""
    return replace(faithful(job), precision="bf16", stated_precision="fp32")


def states_bf16_and_runs_fp32(job):
    """It says bf16 of every operator, and computes in fp32 as it was asked to: the numbers are right."""
    return replace(faithful(job), stated_precision="bf16")


def hands_operators_to_another_device(job):
    """Every other operator runs on another device than the cell's; the numbers are right."""
    return replace(faithful(job), stated_devices=("cpu", "npu"))


@dataclass
class Mute(MiniatureSession):
    """A session that is right and breaks when it is asked what it runs."""

    def execution(self, feed: Feed) -> dict[str, Any]:
        """Raise."""
        raise RuntimeError("profiling was not compiled in")


def cannot_state_what_ran(job):
    """It does not know what it ran; the numbers are right."""
    session = faithful(job)
    return Mute(session.model, session.precision)


def raises_at_open(job):
    """The artifact cannot be opened."""
    raise ValueError("protobuf parsing failed")


def raises_at_run(job):
    """The runtime refuses the inputs."""

    def alter(results: list) -> list:
        raise RuntimeError("Got invalid dimensions for input: x")

    return _with(job, alter)


def lacks_operator(job):
    """The runtime knows its limits."""
    raise Unsupported("miniature 0.0 has no implementation of Tanh (opset 1)")


def lacks_device(job):
    """The runtime finds no device."""
    raise NoDevice("miniature 0.0 finds no accelerator")


# --- the process


def segfaults(job):
    """The runtime reads address 0 while it runs."""
    return _with(job, lambda _: hazards.read_address_zero())


def segfaults_at_open(job):
    """The runtime reads address 0 while it opens the artifact."""
    return hazards.read_address_zero()


def exits_with_zero(job):
    """The runtime ends the process as if all were well."""
    return _with(job, lambda _: hazards.exit_with_zero())


def hangs(job):
    """The runtime never comes back, and neither does the process that it started."""
    return _with(job, lambda _: hazards.hang("backend"))


def allocates_without_end(job):
    """The runtime takes all the memory that it can get."""
    return _with(job, lambda _: hazards.allocate())


def aborts_without_memory(job):
    """The runtime ends as C++ does on a failed allocation."""
    return _with(job, lambda _: hazards.abort_without_memory())


def killed_by_kernel(job):
    """The runtime is ended as the kernel does when memory runs out."""
    return _with(job, lambda _: hazards.kill())


def floods_stdout(job):
    """The runtime prints 200 MB in its first run, and is right."""
    left = [hazards.flood]

    def alter(results: list) -> list:
        while left:
            left.pop()()
        return results

    return _with(job, alter)
