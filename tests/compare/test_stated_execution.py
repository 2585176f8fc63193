"""What a runtime states of what it ran: read from the real ones, and set beside the error by one rule."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.compare.stated_execution import (
    Node,
    as_asked,
    coarser,
    contradiction,
    examined,
    misplaced,
    tally,
    with_wider_sums,
)
from pytest_modelformats.report.facts import executed
from pytest_modelformats.schema import PRECISIONS, Cell, Decision, Outcome, OutputParity, PlannedCell, Source, Verdict
from pytest_modelformats.schema.contract import SessionJob
from pytest_modelformats.systems.onnxruntime import backend as ort_backend
from pytest_modelformats.systems.onnxruntime.profile import MOST_BYTES, profiled, read_profile
from pytest_modelformats.systems.openvino import backend as openvino_backend

NOISE = {p: [Noise(rms, 4 * rms, rms)] for p, rms in {"fp32": 1e-6, "fp16": 1e-3, "bf16": 8e-3}.items()}


def output(error, effective, outcome=Outcome.PASSED):
    return OutputParity("y", outcome, None, "", error_rms=error, effective_precision=effective)


def stated(*precisions, devices=("cpu",)):
    return tally(
        [Node(f"Op{i}", p, devices[i % len(devices)]) for i, p in enumerate(precisions)],
        "profile",
    )


# --- the rule: error, what it looks like, what is stated, what the artifact holds


@pytest.mark.parametrize(
    ("error", "effective", "said", "artifact"),
    [
        (1e-6, "fp32", ["fp32"], "fp32"),
        (8e-3, "bf16", ["bf16"], "fp32"),
        (8e-3, "bf16", ["fp32", "bf16"], "fp32"),  # one of them made it
        (1e-3, "fp16", ["fp32", "bf16"], "fp32"),  # between the two
        (1e-3, "fp16", ["fp32"], "fp16"),  # rounded weights, computed in fp32 between casts
        (1e-3, "fp16-weights", ["fp32"], "fp16-weights"),
        (3e-6, "bf16", ["fp32"], "fp32"),  # called bf16, and fp32 explains it all the same
        (1e-6, "fp32", ["fp64"], "fp32"),  # nothing finer than fp32 is told apart
        (8e-3, "bf16", ["int8"], "fp32"),  # quantised: the error is not one of rounding
        (8e-3, "bf16", [], "fp32"),  # nothing is stated
        (8e-3, "", ["fp32"], "fp32"),
    ],
)
def test_what_can_both_be_true_is_no_contradiction(error, effective, said, artifact):
    assert contradiction([output(error, effective)], stated(*said), artifact, NOISE) == ""


@pytest.mark.parametrize(
    ("error", "effective", "said", "artifact", "words"),
    [
        (
            8e-3,
            "bf16",
            ["fp32"] * 3,
            "fp32",
            ("fp32 for all of its 3 operators (profile)", "8e+03 × fp32's", "1 × bf16's"),
        ),
        (8e-3, "bf16", ["fp32", "fp16"], "fp32", ("fp16 for 1 and fp32 for 1", "8 × fp16's")),
        (8e-3, "bf16", ["fp32"], "fp16", ("8 × fp16's",)),
        (1e-6, "fp32", ["bf16"], "fp32", ("bf16 for all of its 1 operators", "0.000125 × bf16's")),
        (1e-6, "fp32", ["fp16"], "fp16", ("0.001 × fp16's",)),
    ],
)
def test_what_cannot_both_be_true_is_one_sentence(error, effective, said, artifact, words):
    sentence = contradiction([output(error, effective, Outcome.FALLBACK)], stated(*said), artifact, NOISE)
    for part in (*words, "output 'y'", "contradict each other. Believe the error"):
        assert part in sentence


@pytest.mark.parametrize(
    ("asked", "said", "expected"),
    [
        ("fp16", ["bf16", "bf16", "fp32"], "bf16"),  # most of them; a softmax is kept in fp32
        ("fp16", ["bf16", "fp32", "fp32"], ""),
        ("fp16", ["fp16"], ""),
        ("fp16", ["fp32"], ""),  # finer is no reason
        ("fp32", ["int8"], ""),  # its rounding is not known
        ("default", ["bf16"], "bf16"),
        ("fp16", [], ""),
    ],
)
def test_a_cell_may_be_judged_by_a_coarser_precision_that_most_operators_ran(asked, said, expected):
    assert coarser(stated(*said), PRECISIONS[asked], NOISE) == expected


def test_what_passes_at_what_ran_fell_back_from_what_was_asked():
    passed = replace(output(1e-3, "bf16"), noise_rms=8e-3, noise_ratio=0.125)
    whole = OutputParity("label", Outcome.PASSED, None, "exact")
    execution, asked = stated("bf16", "bf16", "fp32"), PRECISIONS["fp16"]
    found = as_asked(Verdict(Outcome.PASSED, None, "", (passed, whole)), execution, "bf16", asked)
    assert [o.outcome for o in found.outputs] == [Outcome.FALLBACK, Outcome.PASSED]
    assert found.outputs[0].effective_precision == "bf16"
    assert found.sentence.startswith(
        "Output 'y': asked for fp16, and the runtime states bf16 for 2 and fp32 for 1 of its"
    )
    assert found.sentence.endswith("Next: judge or ship it as bf16, or ask a backend that has fp16.")
    exact = Verdict(Outcome.PASSED, None, "", (whole,))
    assert as_asked(exact, execution, "bf16", asked) == exact, "no precision was judged"


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (["bf16", "bf16", "fp32"], Outcome.PASSED),  # a softmax in fp32 is no other precision
        (["bf16", "fp32", "fp32"], Outcome.FALLBACK),
        ([], Outcome.FALLBACK),
    ],
)
def test_a_small_error_is_no_finer_precision_where_most_operators_ran_the_asked_one(said, outcome):
    fell = replace(output(1e-3, "fp16", Outcome.FALLBACK), noise_rms=8e-3, noise_ratio=0.125)
    verdict = Verdict(Outcome.FALLBACK, None, "fell", (fell, OutputParity("label", Outcome.PASSED, None, "exact")))
    assert with_wider_sums(verdict, stated(*said), PRECISIONS["bf16"]).outcome is outcome


def test_a_wrong_model_has_no_precision_to_contradict():
    assert contradiction([output(8e-3, "bf16", Outcome.FAILED)], stated("fp32"), "fp32", NOISE) == ""


def test_operators_elsewhere_are_named_with_their_number():
    assert misplaced(stated("fp32", "fp32"), "cpu") == ""
    assert misplaced({}, "cuda") == ""
    sentence = misplaced(stated(*["fp32"] * 9, devices=("cuda", "cpu")), "cuda")
    assert sentence.startswith(
        "Asked for cuda, and the runtime states that 4 of 9 operators are on cpu (Op1, Op3, Op5, …)"
    )
    assert "or ask for cpu" in sentence


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Outcome.PASSED, Outcome.FALLBACK),
        (Outcome.FALLBACK, Outcome.FALLBACK),
        (Outcome.FAILED, Outcome.FAILED),
    ],
)
def test_another_device_makes_a_pass_a_fallback(before, after):
    planned = PlannedCell(Cell("m", "onnx", "fp32", "onnxruntime", "cuda"), (), "fp32", Decision())
    verdict = examined(Verdict(before, None, "Judged."), stated("fp32", devices=("cpu",)), planned, NOISE)
    assert verdict.outcome is after
    assert ("are on cpu" in verdict.sentence) == (after is Outcome.FALLBACK)
    assert verdict.execution["devices"] == {"cpu": 1}


def test_what_only_moves_values_says_nothing_of_the_arithmetic():
    nodes = [
        Node("Cast", "fp16", "cpu"),
        Node("Reshape", "fp16", "cpu"),
        Node("Add", "", "cpu"),
        Node("Gemm", "fp32", "cuda"),
    ]
    found = tally(nodes, "profile")
    assert found["precisions"] == {"fp32": 1}
    assert found["placement"] == {"cuda": {"Gemm": 1}}


# --- the runtimes themselves


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """x [N, 64] through Gemm, Tanh, Gemm in fp32, and the same graph in fp16."""
    folder = tmp_path_factory.mktemp("execution")
    random = np.random.default_rng(0)

    def write(name, kind, dtype):
        weights = [numpy_helper.from_array(random.normal(size=(64, 64)).astype(dtype) / 8, f"w{i}") for i in (1, 2)]
        nodes = [
            helper.make_node("Gemm", ["x", "w1"], ["h"]),
            helper.make_node("Tanh", ["h"], ["a"]),
            helper.make_node("Gemm", ["a", "w2"], ["b"]),
            helper.make_node("Reshape", ["b", "shape"], ["y"]),
        ]
        shape = numpy_helper.from_array(np.array([-1, 8, 8]), "shape")
        x = helper.make_tensor_value_info("x", kind, ["N", 64])
        y = helper.make_tensor_value_info("y", kind, ["N", 8, 8])
        graph = helper.make_graph(nodes, "g", [x], [y], [*weights, shape])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / name)
        return folder / name

    return write("fp32.onnx", TensorProto.FLOAT, np.float32), write("fp16.onnx", TensorProto.FLOAT16, np.float16)


def job(path, precision, form="onnx"):
    return SessionJob(Source("net", str(path), form, form), path, form, precision, precision, "cpu", 1, (), ())


def test_onnxruntime_states_where_and_how_each_operator_ran(model, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    session = ort_backend.open_session(job(model[0], "fp32"))
    found = session.execution({"x": np.ones((2, 64), np.float32)})
    # The optimiser puts Gemm and Tanh into one kernel; Reshape moves values only.
    assert found["precisions"] == {"fp32": 2}
    assert found["placement"] == {"cpu": {"FusedGemm": 1, "Gemm": 1}}
    assert found["execution_providers"] == ["CPUExecutionProvider"]
    assert (found["casts"], found["inserted_casts"]) == ({}, 0)
    assert list(tmp_path.iterdir()) == []  # the profile is gone


def test_an_fp16_model_that_onnxruntime_computes_in_fp32_is_seen(model):
    """Its CPU kernels compute Gemm and Tanh in fp32: the casts that ONNX Runtime inserted say so."""
    session = ort_backend.open_session(job(model[1], "fp16"))
    found = session.execution({"x": np.ones((2, 64), np.float16)})
    assert found["precision"] == "fp32"
    assert found["inserted_casts"] >= 2
    assert set(found["casts"]) == {"fp16 to fp32", "fp32 to fp16"}
    assert "casts inserted (profile)" in executed(found)


def event(name, kind, provider, dtype="float"):
    args = {"op_name": kind, "provider": provider, "node_index": name, "output_type_shape": [{dtype: [1]}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": args}


def test_a_node_that_runs_on_another_provider_is_counted_there():
    events = [
        event("a", "Conv", "CUDAExecutionProvider"),
        event("b", "Gelu", "CPUExecutionProvider"),
        event("b", "Gelu", "CPUExecutionProvider"),  # in a loop
        event("c", "Add", "CPUExecutionProvider", "int64"),  # shape arithmetic
        event("d", "ConvTranspose", "FancyExecutionProvider"),
        {"cat": "Session", "name": "model_run"},
    ]
    found = read_profile(events)
    assert found["devices"] == {"cpu": 1, "cuda": 1, "fancy": 1}
    assert "1 of 3 operators are on cpu (Gelu)" in misplaced(found, "cuda")


def test_a_profile_of_float_values_does_not_contradict_tf32_where_it_is_allowed():
    """As on an H100: asked for tf32, the profile says float, and the error is tf32's."""
    events = [event(name, "Conv", "CUDAExecutionProvider") for name in "abc"]
    strict, allowed = read_profile(events), read_profile(events, tf32=True)
    assert (strict["precision"], strict["precisions"]) == ("fp32", {"fp32": 3})
    assert (allowed["precision"], allowed["precisions"]) == ("tf32", {"fp32": 3, "tf32": 3})
    noise = {p: [Noise(rms, 4 * rms, rms)] for p, rms in {"fp32": 1e-6, "tf32": 1e-3}.items()}
    measured = [output(5.6e-4, "tf32")]
    assert "contradict" in contradiction(measured, strict, "fp32", noise)
    assert contradiction(measured, allowed, "fp32", noise) == ""
    on_cpu = [event("a", "Conv", "CPUExecutionProvider")]
    assert read_profile(on_cpu, tf32=True)["precisions"] == {"fp32": 1}


@pytest.mark.parametrize(("allowed", "expected"), [("1", "tf32"), ("0", "fp32")])
def test_whether_tf32_was_allowed_is_asked_of_the_session_itself(tmp_path, allowed, expected):
    class Fake:
        def get_inputs(self):
            return []

        get_outputs = get_inputs

        def get_providers(self):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def get_provider_options(self):
            return {"CUDAExecutionProvider": {"use_tf32": allowed}, "CPUExecutionProvider": {}}

        def run(self, names, feed):
            return []

        def end_profiling(self):
            path = tmp_path / "profile.json"
            path.write_text(json.dumps([event("a", "Conv", "CUDAExecutionProvider")]))
            return str(path)

    asked = replace(job(tmp_path / "m.onnx", "tf32"), device="cuda")
    session = ort_backend.OnnxRuntimeSession(Fake(), asked, {}, lambda prefix: Fake())
    found = session.execution({})
    assert (found["precision"], found["use_tf32"]) == (expected, expected == "tf32")


def test_a_large_model_is_not_loaded_a_second_time(tmp_path):
    with (tmp_path / "m.onnx.data").open("wb") as handle:
        handle.truncate(MOST_BYTES + 1)
    (tmp_path / "m.onnx").touch()

    def refuse(prefix):
        raise AssertionError(prefix)

    found = profiled(refuse, {}, tmp_path / "m.onnx")
    assert "another 1.1 GB" in found["why_not"]
    assert executed(found) == found["why_not"]


def test_openvino_states_the_precision_of_its_execution_graph(model):
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    # Without fp16 units the hint f16 is served as bf16 where there are bf16 units, and as fp32 where there are none.
    half = "fp16" if "FP16" in able else "bf16"
    for precision, expected in (("fp32", "fp32"), *([("bf16", "bf16"), ("fp16", half)] if "BF16" in able else [])):
        session = openvino_backend.open_session(job(model[0], precision))
        found = session.execution({})
        assert found["precision"] == expected, found
        assert found["execution_devices"] == ["CPU"]
        assert found["devices"] == {"cpu": sum(found["precisions"].values())}


@pytest.mark.parametrize(
    ("dtype", "medium", "expected"),
    [("float32", False, {"fp32": 2}), ("bfloat16", False, {"bf16": 2}), ("float32", True, {"bf16": 2, "fp32": 2})],
)
def test_torch_states_dtypes_and_flags(dtype, medium, expected):
    import torch

    from pytest_modelformats.systems.torch.statement import stated as state

    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium" if medium else "highest")
        found = state(torch.nn.Linear(3, 3).to(getattr(torch, dtype)), "cpu")
    finally:
        torch.set_float32_matmul_precision(before)
    assert found["precisions"] == expected
    assert found["devices"] == {"cpu": 2}
    assert found["flags"]["float32_matmul_precision"] == ("medium" if medium else "highest")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_finds_the_weights_of_a_frozen_module():
    import torch

    from pytest_modelformats.systems.torch.statement import stated as state

    frozen = torch.jit.freeze(torch.jit.script(torch.nn.Linear(3, 3).eval()))
    assert not list(frozen.parameters())
    assert state(frozen, "cpu")["precisions"] == {"fp32": 2}
    with torch.autocast("cpu", torch.bfloat16):
        assert state(frozen, "cpu")["precisions"] == {"bf16": 2, "fp32": 2}
