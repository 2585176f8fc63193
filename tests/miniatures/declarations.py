"""What the package registers. ``backend_<fault>``, ``beside_<fault>`` and ``converter_<function>`` are made on demand.

Beside every faulty backend stands a faithful one, which runs next in the same worker: what a
fault does to its neighbours is seen there.
"""

from __future__ import annotations

from typing import Any

from pytest_modelformats.schema import Backend, Converter

FP32 = {("mini", "fp32"): ("fp32",)}
FP16 = {("mini", "fp32"): ("fp16",)}
TF32 = {("mini", "fp32"): ("tf32",)}
# The faults of faults.py, in the order in which they run; the precision that they claim.
FAULTS = {
    "drops_output": FP32,
    "drops_output_silently": FP32,
    "adds_output": FP32,
    "swaps_outputs": FP32,
    "reorders_outputs": FP32,
    "renames_output": FP32,
    "wrong_shape": FP32,
    "broadcastable_shape": FP32,
    "int64_to_int32": FP32,
    "int64_to_int32_silently": FP32,
    "fixes_batch": FP32,
    "bakes_batch": FP32,
    "states_a_fixed_batch": FP32,
    "off_by_one_unit": FP32,
    "off_by_fifty_units": FP32,
    "nan_in_one_element": FP32,
    "infinity_in_one_element": FP32,
    "one_element_wrong": FP32,
    "constant_output": FP32,
    "ignores_input": FP32,
    "wrong_integer": FP32,
    "wrong_for_odd_batches": FP32,
    "remembers_last_input": FP32,
    "differs_in_second_session": FP32,
    "mixes_rows_by_order": FP32,
    "keeps_largest_input": FP32,
    "writes_its_input": FP32,
    "shares_a_buffer": FP32,
    "takes_one_call_at_a_time": FP32,
    "differs_with_threads": FP32,
    "claims_fp16_and_runs_fp32": FP16,
    "claims_fp16_and_runs_bf16": FP16,
    "claims_fp32_and_runs_bf16": FP32,
    "claims_fp32_and_runs_tf32": FP32,
    "claims_fp32_and_runs_fp16": FP32,
    "claims_tf32_and_runs_fp32": TF32,
    "claims_tf32_and_runs_bf16": TF32,
    "states_fp32_and_runs_bf16": FP32,
    "states_bf16_and_runs_fp32": FP32,
    "admits_bf16_and_runs_it_on_large_inputs": FP32,
    "hands_operators_to_another_device": FP32,
    "cannot_state_what_ran": FP32,
    "raises_at_open": FP32,
    "raises_at_run": FP32,
    "lacks_operator": FP32,
    "lacks_device": FP32,
    "segfaults": FP32,
    "segfaults_at_open": FP32,
    "exits_with_zero": FP32,
    "hangs": FP32,
    "allocates_without_end": FP32,
    "aborts_without_memory": FP32,
    "killed_by_kernel": FP32,
    "floods_stdout": FP32,
    "clips_large_inputs": FP32,
    "is_slightly_wrong": FP32,
}
# The runtimes of minimap.py, for its format alone.
MAPS = ("right", "one_element", "small_channel")
# The functions of converters.py; the first is the faithful one and the default.
CONVERTERS = (
    "copies",
    "rounds_one_weight_to_fp16",
    "rounds_one_tensor_to_fp16",
    "zeroes_one_weight",
    "swaps_activation",
    "lacks_operator",
    "raises",
    "writes_nothing",
    "forgets_weights",
    "segfaults",
    "exits_with_zero",
    "hangs",
    "allocates_without_end",
)
INSTALL = "pip install miniature-runtime"
ONE_CALL = {"takes_one_call_at_a_time": "the miniature has one buffer"}


def _backend(name: str, entry: str, precisions: dict[tuple[str, str], tuple[str, ...]], **more: Any) -> Backend:
    return Backend(
        name=name.replace("_", "-"),
        title=name.replace("_", " "),
        worker="miniature",
        precisions=precisions,
        devices=("cpu",),
        entry=entry,
        **{"requires": ("numpy",), **more},
    )


FAITHFUL = _backend(
    "faithful",
    "miniatures.session:faithful",
    {("mini", "fp32"): ("fp32", "tf32", "fp16", "bf16"), ("minicopy", "fp32"): ("fp32",)},
)
NOT_INSTALLED = _backend(
    "not-installed",
    "miniatures.session:faithful",
    FP32,
    requires=("miniature_runtime_that_nobody_has",),
    install=INSTALL,
)


def __getattr__(name: str) -> Backend | Converter:
    kind, _, function = name.partition("_")
    if kind == "backend" and function in FAULTS:
        states = {"one_call_at_a_time": ONE_CALL.get(function, "")}
        return _backend(function, f"miniatures.faults:{function}", FAULTS[function], **states)
    if kind == "beside" and function in FAULTS:
        return _backend(name, "miniatures.session:faithful", FP32)
    if kind == "map" and function in MAPS:
        return _backend(name, f"miniatures.minimap:{function}", {("minimap", "fp32"): ("fp32",)})
    if kind == "converter" and function in CONVERTERS:
        return Converter(
            name=f"minicopy_{function}_mini",
            source="mini",
            target="minicopy",
            precisions={"fp32": ("fp32",)},
            entry=f"miniatures.converters:{function}",
            route=function,
            default=function == CONVERTERS[0],
            requires=("numpy",),
        )
    msg = f"miniatures.declarations has no '{name}'"
    raise AttributeError(msg)


def entry_points() -> str:
    """The ``entry_points.txt`` of the package."""
    here = "miniatures.declarations"
    lines = ["[modelformats.formats]", "mini = miniatures.mini:FORMAT", "minicopy = miniatures.minicopy:FORMAT"]
    lines += ["minimap = miniatures.minimap:FORMAT"]
    lines += ["[modelformats.converters]"]
    lines += [f"minicopy_{name}_mini = {here}:converter_{name}" for name in CONVERTERS]
    lines += ["[modelformats.backends]", f"faithful = {here}:FAITHFUL", f"not-installed = {here}:NOT_INSTALLED"]
    lines += [f"map-{name.replace('_', '-')} = {here}:map_{name}" for name in MAPS]
    for name in FAULTS:
        shown = name.replace("_", "-")
        lines += [f"{shown} = {here}:backend_{name}", f"beside-{shown} = {here}:beside_{name}"]
    return "\n".join(lines) + "\n"
