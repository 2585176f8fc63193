"""Does the bug of this folder still exist? Runs with numpy and the runtime alone: ``python repro.py``.

Exit status 1: it exists. 0: it does not any longer. 2: the runtime is not installed. 3: this script cannot tell.
``--artifact FILE`` looks at another artifact instead of the folder's, ``--timeout SECONDS`` waits longer or shorter.
The model runs in a process of its own, so that a crash or a hang is told like any other bug.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading  # noqa: F401 - what stands below "how it is called" in a bundle needs it
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

HERE = Path(__file__).resolve().parent
EXISTS, GONE, MISSING, UNKNOWN = 1, 0, 2, 3
UNCHANGED = "the inputs hold the same bits after the call"
RAISED, NOT_INSTALLED = 70, 71  # of the process inside, which has no other use for them


# --- how the artifact is opened
def open_alone(settings: Mapping[str, Any]) -> tuple[Any, list[list[Any]], list[list[Any]]]:
    """Open the artifact as :func:`open_session` does; the source of this goes into reproduction bundles as it is."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = settings["threads"], 1
    level = {"disable": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}
    chosen = level[settings["options"].get("optimization", "all")]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{chosen}")
    providers: list[Any] = ["CPUExecutionProvider"]
    if settings["device"] == "cuda":
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        tf32 = "1" if settings["precision"] == "tf32" else "0"
        providers = [("CUDAExecutionProvider", {"device_id": "0", "use_tf32": tf32})]
    session = onnxruntime.InferenceSession(settings["artifact"], options, providers=providers)

    def stated(ports: Any) -> list[list[Any]]:
        kinds = [port.type.replace("tensor(", "").replace(")", "") for port in ports]
        dtypes = [{"float": "float32", "double": "float64"}.get(kind, kind) for kind in kinds]
        shapes = [[d if isinstance(d, int) else None for d in port.shape] for port in ports]
        return [[port.name, dtype, shape] for port, dtype, shape in zip(ports, dtypes, shapes, strict=True)]

    return lambda feed: session.run(None, feed), stated(session.get_inputs()), stated(session.get_outputs())


# --- how it is called
def own_dtypes(wanted: Sequence[tuple[str, str]], stated: Sequence[tuple[str, str]], precision: str) -> dict[str, str]:
    """The inputs, by name, that an artifact of a narrow precision takes in that precision's own float dtype.

    ``wanted`` are the source's (name, dtype), ``stated`` the runtime's; the contract allows it (``interface.py``).
    """
    own = {"fp16": "float16", "bf16": "bfloat16"}.get(precision, "")
    named = dict(stated)
    places = [dtype for _, dtype in stated] if len(stated) == len(wanted) else [""] * len(wanted)
    return {
        name: own
        for (name, dtype), by_place in zip(wanted, places, strict=True)
        if own and "float" in dtype and dtype != own == named.get(name, by_place)
    }


def in_dtypes(feed: Feed, dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The feed with the named inputs rounded to a narrower float; bfloat16, which numpy lacks, stays in float32."""
    import numpy as np

    cast = dict(feed)
    for name, dtype in dtypes.items():
        with np.errstate(over="ignore"):  # infinite there, as inside an artifact that takes float32 and casts itself
            if dtype != "bfloat16":
                cast[name] = feed[name].astype(dtype)
                continue
            wide = np.array(feed[name], np.float32)
        bits = wide.view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
        cast[name] = np.where(np.isnan(wide), wide, rounded.view(np.float32))
    return cast


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


def laid_out(feed: Mapping[str, np.ndarray], layouts: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The same values with the memory layout that ``layouts`` says by name; contiguous where it says none."""
    return {name: _laid_out(array, layouts[name]) if name in layouts else array for name, array in feed.items()}


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


# --- the rest is the same for every runtime
def convert_again(settings: Mapping[str, Any], folder: Path) -> None:
    """Run the chain of converters once more, with pytest-modelformats, which has them."""
    from pytest_modelformats.run.workers.server import Server

    server = Server()
    current = settings["artifact"]
    for number, step in enumerate(settings["steps"]):
        output = folder / str(number) / step["name"]
        output.parent.mkdir()
        job = {**step["job"], "source": settings["source"], "input": current, "output": str(output)}
        job |= {"inputs": settings["inputs"], "outputs": settings["outputs"], "example": settings["example"]}
        answer = server.handle({"op": "convert", "entry": step["entry"], "job": job})
        if not answer["ok"]:
            raise RuntimeError(f"{step['entry']}: {answer['message']}")
        current = str(output)


def inside(case: Mapping[str, Any], folder: Path) -> int:
    """Open and run in this process; leave what came out as .npy files in ``folder``."""
    settings = case["settings"]
    try:
        if case["law"] == "convert":
            convert_again(settings, folder)
            return finished(folder)
        opened: dict[int, Any] = {}
        for number, (feed, session) in enumerate(case["runs"] or [[None, 0]]):
            if session not in opened:
                threads = {"threads": case["threads"][session]} if case["threads"] else {}
                opened[session], inputs, outputs = open_alone({**settings, **threads})
                (folder / "stated.json").write_text(json.dumps([inputs, outputs]))
                wanted = [(spec["name"], spec["dtype"]) for spec in settings["inputs"]]
                case = {**case, "dtypes": own_dtypes(wanted, [(i[0], i[1]) for i in inputs], settings["precision"])}
                for earlier in case["before"] if session == 0 else ():
                    opened[session](feed_of(case, earlier))
            if feed is not None:
                arrays = feed_of(case, feed)
                before = copies(arrays) if case["law"] == "unmodified" else {}
                keep(folder, number, opened[session](arrays))
                (folder / "changed.json").write_text(json.dumps(changed(before, arrays)))
        if case["together"]:
            call_together(case, folder, opened[0])
    except ImportError as error:
        (folder / "error.txt").write_text(str(error))
        return NOT_INSTALLED
    except Exception as error:  # noqa: BLE001 - whatever the runtime raises is the bug
        (folder / "error.txt").write_text(f"{type(error).__name__}: {error}")
        return RAISED
    return finished(folder)


def feed_of(case: Mapping[str, Any], feed: int) -> dict[str, np.ndarray]:
    """The inputs of a feed by name, in the dtypes that the artifact takes and as they are to lie in memory."""
    import numpy as np

    specs = case["settings"]["inputs"]
    files = [HERE / "inputs" / str(feed) / f"{i}.npy" for i in range(len(specs))]
    arrays = {spec["name"]: np.load(file, allow_pickle=False) for spec, file in zip(specs, files, strict=True)}
    return laid_out(in_dtypes(arrays, case["dtypes"]), case["layouts"][feed] if case["layouts"] else {})


def keep(folder: Path, number: int, results: Sequence[Any]) -> None:
    """Leave the outputs of a run, and a sign that it was made: a run may have no outputs."""
    import numpy as np

    for index, array in enumerate(results):
        np.save(folder / f"{number}-{index}.npy", np.asarray(array), allow_pickle=False)
    (folder / f"{number}.made").touch()


def call_together(case: Mapping[str, Any], folder: Path, run: Any) -> None:
    """Call from several threads at once, again and again; results whose bits a call alone gives too are not kept."""
    asked, number = case["together"], len(case["runs"])
    feeds = [feed_of(case, feed) for feed in asked["feeds"]]
    alone = [[array.tobytes() for array in saved(folder, caller)] for caller in range(len(feeds))]
    started = time.monotonic()
    for _ in range(asked["attempts"]):
        for caller, calls in enumerate(together(run, feeds, asked["rounds"])):
            for results in calls:
                if [array.tobytes() for array in results] != alone[caller]:
                    keep(folder, number, results)
                number += 1
        if time.monotonic() - started > asked["seconds"]:
            return


def beside(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups that compare each call beside others with the one that was made alone."""
    asked, number, groups = case["together"], len(case["runs"]), []
    for attempt in range(1, asked["attempts"] + 1 if asked else 1):
        for caller in range(len(asked["feeds"])):
            for call in range(1, asked["rounds"] + 1):
                what = f"attempt {attempt}, call {call} of thread {caller + 1}, beside the others"
                sides = {"left": [[number, None]], "right": [[caller, None]]}
                groups.append({"what": what, **sides, "wide": asked["wide"]})
                number += 1
    return groups


def finished(folder: Path) -> int:
    """Leave a sign that the end was reached: a runtime may exit with 0 before it."""
    (folder / "finished").touch()
    return 0


def limit_memory(size: int) -> None:
    """Hold this process to the memory that the worker had; a platform without such limits goes without."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    except (ImportError, ValueError, OSError):
        return


def interface_differences(case: Mapping[str, Any], stated: Sequence[Sequence[Sequence[Any]]]) -> list[str]:
    """Where names and dtypes that the runtime states are not the source's, and the dimensions that failed."""
    settings, found = case["settings"], []
    own = {"fp16": "float16", "bf16": "bfloat16"}.get(settings["precision"])
    for what, side in (("input", stated[0]), ("output", stated[1])):
        wanted = settings[f"{what}s"]
        if side and len(side) != len(wanted):
            found.append(f"there are {len(side)} {what}s where the source has {len(wanted)}")
            continue
        known = {spec["name"] for spec in wanted}
        for spec, (name, dtype, shape) in zip(wanted, side, strict=False):
            free = what == "output" and spec["name"] in case["invented"] and name not in known
            if case["named"][what] and name and spec["name"] and name != spec["name"] and not free:
                found.append(f"{what} '{spec['name']}' is called '{name}'")
            if dtype and dtype != spec["dtype"] and not ("float" in spec["dtype"] and dtype == own):
                found.append(f"{what} '{spec['name']}' is {dtype} where the source has {spec['dtype']}")
            label = f"{what} '{spec['name']}'"
            if label in case["dimensions"]:  # what is declared is a hint; these did not come out as the source's
                found += dimension_differences(label, spec["shape"], shape)
    return found


def dimension_differences(what: str, wanted: Sequence[Any] | None, has: Sequence[Any] | None) -> list[str]:
    """The same for the dimensions of one input or output; ``None`` stands for one that may vary."""
    if wanted is None or has is None:
        return []
    if len(wanted) != len(has):
        return [f"{what} has rank {len(has)} where the source has {len(wanted)}"]
    return [
        f"dimension {axis} of {what} is {got} where the source has {dim}"
        for axis, (dim, got) in enumerate(zip(wanted, has, strict=True))
        if isinstance(got, int) and got != dim
    ]


# An element may be off by so much where only the whole has a limit: JSON has no infinity.
NO_LIMIT = 1e200


def judge_output(
    output: Mapping[str, Any], pairs: Sequence[tuple[Any, Any]], wide: Sequence[float]
) -> tuple[bool, str]:
    """Whether one output is wrong, and the numbers: rms and largest difference against their limits.

    ``pairs`` are (what is right, what came out) of equal shape; ``wide`` widens the limits for two runs.
    """
    import numpy as np

    name, size = output["name"], sum(got.size for _, got in pairs)
    if not np.issubdtype(pairs[0][0].dtype, np.floating):
        changed = sum(int((right != got).sum()) for right, got in pairs)
        allowed = int(np.ceil(output["allowed_flips"] * wide[1] * size))
        return changed > allowed, f"'{name}': {changed} of {size} elements differ, {allowed} may"
    squares, largest, count, misplaced, close = 0.0, 0.0, 0, 0, True
    for right, got in pairs:
        t, y = right.astype(np.float64), got.astype(np.float64)
        with np.errstate(over="ignore"):
            narrow = right.astype(got.dtype) if np.issubdtype(got.dtype, np.floating) else t
        infinite = (np.isinf(narrow) | np.isinf(y)) & (narrow != y) & ~np.isnan(t) & ~np.isnan(y)
        misplaced += int((np.isnan(t) != np.isnan(y)).sum()) + int(infinite.sum())
        finite = np.isfinite(t) & np.isfinite(y)
        apart = np.abs(y - t)[finite]
        squares, count = squares + float((apart**2).sum()), count + apart.size
        largest = max([largest, *apart.max(initial=0.0, keepdims=True).tolist()])
        if output.get("tolerance"):
            close &= bool(np.allclose(y, t, **output["tolerance"], equal_nan=True))
    if misplaced:
        return True, f"'{name}': NaN or Inf in other places than the source's, in {misplaced} of {size} elements"
    rms = (squares / count) ** 0.5 if count else 0.0
    if output.get("tolerance"):
        return not close, f"'{name}': largest difference {largest:.3g}, the fixed tolerance is {output['tolerance']}"
    limits = [output["limit_rms"] * wide[0], output["limit_max"] * wide[1]]
    told = f"'{name}': error {rms:.3g} rms (limit {limits[0]:.3g}), {largest:.3g} at most"
    told += f" (limit {limits[1]:.3g})" if limits[1] < NO_LIMIT / 2 else ""
    if output["low_rms"] and rms < output["low_rms"]:
        return True, f"{told}; below {output['low_rms']:.3g} a finer precision than the asked one ran"
    return rms > limits[0] or largest > limits[1], told


def judge(case: Mapping[str, Any], results: Sequence[Sequence[np.ndarray]]) -> tuple[bool, list[str]]:
    """Whether what came out is wrong, with a line per output and group of runs.

    Shapes: ``results`` is [run][output], in the order of the contract.
    """
    lines: list[str] = []
    wrong = False
    for group in case["groups"]:
        bad, told = judge_group(case, results, group)
        if bad and "or_expected" in group:
            other, instead = judge_group(case, results, group, group["or_expected"])
            bad, told = (other, told if other else instead)
        wrong, lines = wrong or bad, [*lines, *told]
    others = 0
    for group in beside(case):
        if results[group["left"][0][0]] is None:  # the bits of a call alone, or time was up before it
            continue
        others += 1
        bad, told = judge_group(case, results, group)
        # Of many calls, the first wrong one is shown.
        wrong, lines = wrong or bad, [*lines, *(told if bad and not wrong else [])]
    if case["together"] and not wrong:
        lines.append(f"{others} calls beside others gave other bits than alone, none more than rounding explains")
    return wrong, lines


def judge_group(
    case: Mapping[str, Any], results: Any, group: Mapping[str, Any], expected: int | None = None
) -> tuple[bool, list[str]]:
    """The same of one group; ``expected`` is the feed whose truth counts, if it is not the run's own."""
    lines: list[str] = []
    wrong, count = False, len(case["outputs"])
    runs = [run for run, _ in group["left"]]
    odd = next((len(results[run]) for run in runs if len(results[run]) != count), None)
    if odd is not None:
        return True, [f"{group['what']}: {odd} outputs came back where the source has {count}"]
    for index, output in enumerate(case["outputs"]):
        if index not in group.get("outputs", [index]):
            continue
        pairs = [pair(case, results, group, place, index, expected) for place in range(len(runs))]
        may_be_constant = group.get("may_be_constant", False)
        refused = next((text for text in (mismatch(output, *p, may_be_constant) for p in pairs) if text), "")
        if refused:
            bad, told = True, refused
        else:
            bad, told = judge_output(output, scaled(group, [p[:2] for p in pairs]), group["wide"])
        wrong, lines = wrong or bad, [*lines, f"{group['what']}: {told}: {'WRONG' if bad else 'right'}"]
    return wrong, lines


def scaled(group: Mapping[str, Any], pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The pairs in units of each row's own noise, where the group has it; such as may overflow do not count then."""
    import numpy as np

    if "scales" not in group:
        return pairs
    found = [
        (right.astype(np.float64) * scale, got.astype(np.float64) * scale)
        for (right, got), scale in zip(pairs, group["scales"], strict=True)
        if np.isfinite(got).all() or not group["may_overflow"]
    ]
    return found or [(np.zeros(0), np.zeros(0))]


def pair(
    case: Mapping[str, Any], results: Any, group: Mapping[str, Any], place: int, index: int, expected: int | None
) -> tuple[Any, Any, Any]:
    """What is right, what came out (both at the sampled positions, where the truth is sampled), and the right shape."""
    import numpy as np

    def taken(run: int, row: int | None) -> np.ndarray:
        array: np.ndarray = results[run][index]
        return array if row is None else array[row : row + 1]

    got = taken(*group["left"][place])
    if group["right"] is not None:
        right = taken(*group["right"][place])
        order = group.get("order", [])
        right = right[order] if order and right.shape[:1] == (len(order),) else right
        return right, got, right.shape
    feed = case["runs"][group["left"][place][0]][0] if expected is None else expected
    right = np.load(HERE / "expected" / str(feed) / f"{index}.npy", allow_pickle=False)
    shape = tuple(case["expected_shapes"][feed][index])
    positions = case["outputs"][index].get("positions")
    row = group["left"][place][1]
    if row is not None:
        right, shape = right[row : row + 1], (1, *shape[1:])
    if positions and got.shape == shape:
        at = np.load(HERE / positions, allow_pickle=False)
        got = got.reshape(right.shape[0], -1)[:, at]
        shape = got.shape
    return right, got, shape


def mismatch(
    output: Mapping[str, Any], right: np.ndarray, got: np.ndarray, shape: Sequence[int], may_be_constant: bool
) -> str:
    """What of an output's shape or dtype is not the source's, "" if nothing; or that it no longer depends on inputs."""
    import numpy as np

    if tuple(got.shape) != tuple(shape):
        return f"'{output['name']}' has shape {list(got.shape)} where the source gives {list(shape)}"
    if output["dtypes"] and got.dtype.name not in output["dtypes"]:
        return f"'{output['name']}' has dtype {got.dtype.name} where the source gives {output['dtypes'][0]}"

    def stuck(array: np.ndarray) -> bool:
        return not may_be_constant and array.ndim > 0 and array.shape[0] > 1 and bool(np.all(array == array[:1]))

    if got.size > 1 and np.issubdtype(right.dtype, np.floating) and stuck(got) and not stuck(right):
        return f"'{output['name']}' does not depend on its input, while the source's does"
    return ""


def is_what_it_was(results: Sequence[Sequence[np.ndarray]]) -> bool:
    """Whether every output has the bits that came out when the bundle was made."""
    import numpy as np

    for number, arrays in enumerate(results):
        for index, array in enumerate(arrays):
            file = HERE / "observed" / str(number) / f"{index}.npy"
            before = np.load(file, allow_pickle=False) if file.exists() else None
            if before is None or (before.dtype, before.shape) != (array.dtype, array.shape):
                return False
            if before.tobytes() != array.tobytes():
                return False
    return bool(results)


def in_order(case: Mapping[str, Any], stated: Any, arrays: list[Any]) -> list[Any]:
    """The outputs in the source's order, where the format keeps their names."""
    wanted, names = [s["name"] for s in case["settings"]["outputs"]], [name for name, _, _ in stated[1]]
    if case["named"]["output"] and len(arrays) == len(names) and sorted(names) == sorted(wanted):
        return [arrays[names.index(name)] for name in wanted]
    return arrays


def saved(folder: Path, number: int) -> list[np.ndarray]:
    """The outputs of a run, in the runtime's order."""
    import numpy as np

    files = sorted(folder.glob(f"{number}-*.npy"), key=lambda file: int(file.stem.split("-")[1]))
    return [np.load(file, allow_pickle=False) for file in files]


def concluded(case: Mapping[str, Any], folder: Path) -> tuple[int, list[str]]:
    """The exit status, and what there is to say, of a process inside that came to its end."""
    if case["law"] == "training":
        read = runpy.run_path(str(HERE / "training_nodes.py"))["training_nodes"]
        nodes, allowed = read(Path(case["settings"]["artifact"])), case["training_nodes_allowed"]
        said = [f"{kind} '{name}' is in training mode" for kind, name in nodes] or ["no node is in training mode"]
        return (EXISTS if len(nodes) > allowed else GONE), said
    if case["law"] in {"run", "convert"}:
        what = "the conversion" if case["law"] == "convert" else "opening and running"
        return GONE, [f"{what} ended as it ought to"]
    stated = json.loads((folder / "stated.json").read_text())
    if case["law"] == "contract" and not any(stated):
        return UNKNOWN, ["the runtime states no interface"]
    if case["law"] == "contract":
        found = interface_differences(case, stated)
        return (EXISTS if found else GONE), found or ["the interface is the source's"]
    if case["law"] == "unmodified":
        names = json.loads((folder / "changed.json").read_text())
        return (EXISTS, [f"the call changes its input '{name}'" for name in names]) if names else (GONE, [UNCHANGED])
    return decided(case, folder, stated)


def decided(case: Mapping[str, Any], folder: Path, stated: Any) -> tuple[int, list[str]]:
    """The same, where the outputs decide."""
    results: list[Any] = []
    for number in range(len(case["runs"]) + len(beside(case))):
        made = (folder / f"{number}.made").exists()
        results.append(in_order(case, stated, saved(folder, number)) if made else None)
    wrong, lines = judge(case, results)
    if not wrong and case["law"] == "other" and is_what_it_was(results[: len(case["runs"])]):
        return EXISTS, [*lines, "every output is bit for bit what came out when the check failed"]
    if not wrong and case["law"] == "other":
        return UNKNOWN, [*lines, f"what the check '{case['check']}' looks at is not in this script; see README.txt"]
    return (EXISTS if wrong else GONE), lines


def attempt(case: Mapping[str, Any], arguments: list[str], timeout_s: float) -> tuple[int, list[str]]:
    """Run the process inside and say how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--inside", folder, *arguments]
        try:
            # A group of its own, so that whatever it starts ends with it.
            process = subprocess.Popen(command, start_new_session=True)
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9) if hasattr(os, "killpg") else process.kill()
            process.wait()
            return EXISTS, [f"no answer within {timeout_s:g} s: it hangs"]
        error = Path(folder, "error.txt")
        text = error.read_text() if error.exists() else ""
        if status == NOT_INSTALLED:
            return MISSING, [f"{text}; install what it needs:", f"  {case['install']}"]
        if status == RAISED:
            return EXISTS, [f"it raised {text}"]
        if status or not Path(folder, "finished").exists():
            how = f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
            return EXISTS, [f"the process that ran the model {how}"]
        return concluded(case, Path(folder))


def main(arguments: Sequence[str] | None = None) -> int:
    """Look whether the bug exists; say what was found, in numbers and in one sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, help="look at this artifact instead of the bundle's")
    parser.add_argument("--timeout", type=float, help="seconds until it counts as hanging")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    case = json.loads((HERE / "case.json").read_text())
    settings = case["settings"]
    is_file = settings["artifact_is"] != "callable"
    if is_file:
        own = HERE / settings["artifact"]  # an absolute path where it was too large to be copied
        settings["artifact"] = str((chosen.artifact or own).resolve())
    if is_file and settings["source_is_artifact"]:
        settings["source"]["location"] = settings["artifact"]
    settings["example"] = {name: str(HERE / path) for name, path in settings["example"].items()}
    if chosen.inside:
        if case["memory_bytes"]:
            limit_memory(case["memory_bytes"])
        return inside(case, chosen.inside)
    if is_file and not Path(settings["artifact"]).is_file():
        return told(case, UNKNOWN, [f"there is no {settings['artifact']}; give it by --artifact (see README.txt)"])
    try:
        import numpy as np  # noqa: F401 - looked for before anything is started
    except ImportError:
        return told(case, MISSING, [f"numpy is not installed: {case['install']}"])
    more = ["--artifact", str(chosen.artifact)] if chosen.artifact else []
    return told(case, *attempt(case, more, chosen.timeout or case["timeout_s"]))


def told(case: Mapping[str, Any], status: int, lines: Sequence[str]) -> int:
    """Print what was found; returns the exit status."""
    end = {
        EXISTS: f"The bug exists. When the bundle was made: {case['sentence']}",
        GONE: "The bug does not exist any longer.",
        MISSING: "Nothing was run.",
        UNKNOWN: "Undecided.",
    }[status]
    sys.stdout.write("\n".join([f"{case['cell']}: {case['check']}", *(f"  {line}" for line in lines), end]) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
