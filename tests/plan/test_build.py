"""The plan: the product of the declarations, each cell with a decision and a reason; nothing is opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.plan import build as plan
from pytest_modelformats.plan import graph
from pytest_modelformats.schema import Converter, Outcome, Source, registry
from pytest_modelformats.settings.nouns import Settings
from pytest_modelformats.source.identify import Candidate

MACHINE = {"gpu": (), "cpu_flags": ("avx2", "avx512_fp16")}
SOURCE = Source("net", "/nowhere/net.pth", "state-dict", "pytorch")


def settings(**changes):
    return Settings(Path("/nowhere"), Path("/nowhere/cache"), Path("/nowhere/reports"), 0, **changes)


def planned(source=SOURCE, candidates=(), machine=MACHINE, installed=lambda _: True, **changes):
    return plan.build_plan(settings(**changes), [source], candidates, machine, installed).cells


def ids(cells):
    return [p.cell.id for p in cells]


def test_the_plan_is_the_product_of_the_declarations():
    assert set(ids(planned(devices=("cpu",)))) == {
        *(f"net-pytorch-{p}-{b}@cpu" for p in ("fp32", "fp16", "bf16") for b in ("torch", "torch-compile")),
        *(f"net-pt2-{p}-torch-export@cpu" for p in ("fp32", "fp16", "bf16")),
        *(f"net-torchscript-{p}-torchscript@cpu" for p in ("fp32", "fp16", "bf16")),
        *(f"net-onnx-{p}-onnxruntime@cpu" for p in ("fp32", "fp16")),
        *(f"net-openvino-{p}-openvino@cpu" for p in ("fp32", "fp16", "bf16", "fp16-weights")),
    }


def test_every_cell_id_is_unique_over_all_routes():
    cells = ids(planned(all_routes=True))
    assert len(cells) == len(set(cells))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("onnx", {"onnx", "openvino"}), ("openvino", {"openvino"}), ("torchscript", {"torchscript", "onnx", "openvino"})],
)
def test_a_source_reaches_what_converters_lead_to(kind, expected):
    assert {p.cell.format for p in planned(Source("net", "/x", kind, kind))} == expected


def test_the_chain_is_the_shortest_path():
    chains = {p.cell.id: [s.converter for s in p.chain] for p in planned(devices=("cpu",))}
    assert chains["net-onnx-fp16-onnxruntime@cpu"] == ["onnx_from_pytorch", "onnx_fp16_from_onnx"]
    assert chains["net-openvino-bf16-openvino@cpu"] == ["openvino_from_pytorch"]
    assert chains["net-pytorch-fp32-torch@cpu"] == []


def test_a_source_in_fp16_is_run_as_it_is_at_fp16_and_has_no_fp32():
    half = Source("net", "/x/net.onnx", "onnx", "onnx", precision="fp16")
    cells = {p.cell.id: p for p in planned(half)}
    own = cells["net-onnx-fp16-onnxruntime@cpu"]
    assert (own.chain, own.artifact_precision, own.decision.runs) == ((), "fp16", True)
    for fine in ("net-onnx-fp32-onnxruntime@cpu", "net-openvino-fp32-openvino@cpu"):
        assert cells[fine].decision.outcome is Outcome.UNSUPPORTED
        assert "the file holds fp16" in cells[fine].decision.reason
    assert cells["net-openvino-bf16-openvino@cpu"].decision.runs
    both = plan.build_plan(settings(), [half, replace(half, name="wide", precision="fp32")], (), MACHINE, bool).cells
    chains = {p.cell.id: [s.converter for s in p.chain] for p in both}
    assert chains["wide-onnx-fp16-onnxruntime@cpu"] == ["onnx_fp16_from_onnx"]
    assert chains["net-onnx-fp16-onnxruntime@cpu"] == []


def test_a_route_is_asked_for_by_name_and_shows_in_the_id():
    cells = planned(formats=("onnx.legacy",), devices=("cpu",))
    assert ids(cells) == ["net-onnx.legacy-fp32-onnxruntime@cpu", "net-onnx.legacy-fp16-onnxruntime@cpu"]
    assert [s.converter for s in cells[1].chain] == ["onnx_from_pytorch_legacy", "onnx_fp16_from_onnx"]


def test_the_default_route_by_name_keeps_the_plain_id():
    assert ids(planned(formats=("onnx.dynamo",), precisions=("fp32",), devices=("cpu",))) == [
        "net-onnx-fp32-onnxruntime@cpu"
    ]


def test_two_chains_of_the_same_length_are_an_error(monkeypatch):
    twin = Converter("onnx_twin", "pytorch", "onnx", {"fp32": ("fp32",)}, "x:y", "twin")
    both = {**registry.converters(), "onnx_twin": twin}
    monkeypatch.setattr(graph, "converters", lambda: both)
    graph.artifacts.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match="onnx at fp32 is ambiguous: onnx_from_pytorch and onnx_twin"):
            graph.artifacts("pytorch")
    finally:
        graph.artifacts.cache_clear()


def test_a_missing_library_is_named_with_its_install_line():
    cells = planned(installed=lambda module: module != "openvino", devices=("cpu",))
    missing = [p for p in cells if p.decision.outcome is Outcome.MISSING_DEPENDENCY]
    assert {p.cell.format for p in missing} == {"openvino"}
    assert "'openvino', which is not installed" in missing[0].decision.reason
    assert missing[0].decision.install == "pip install 'pytest-modelformats[torch,openvino]'"


def test_without_a_gpu_cuda_cells_have_no_device():
    cells = [p for p in planned() if p.cell.device == "cuda"]
    assert cells
    assert {p.decision.outcome for p in cells} == {Outcome.NO_DEVICE}
    with_gpu = planned(machine={**MACHINE, "gpu": ("NVIDIA H100",)})
    assert {p.decision.outcome for p in with_gpu if p.cell.device == "cuda"} == {None}


def test_tf32_is_planned_where_there_are_units_for_it():
    """TF32 is an arithmetic of NVIDIA's tensor cores: no cell of it on a CPU, and no-device without a GPU."""
    cells = [p for p in planned() if p.cell.precision == "tf32"]
    assert set(ids(cells)) == {
        *(f"net-pytorch-tf32-{backend}@cuda" for backend in ("torch", "torch-compile")),
        "net-pt2-tf32-torch-export@cuda",
        "net-torchscript-tf32-torchscript@cuda",
        "net-onnx-tf32-onnxruntime@cuda",
    }
    assert {p.decision.outcome for p in cells} == {Outcome.NO_DEVICE}
    assert {p.artifact_precision for p in cells} == {"fp32"}
    with_gpu = planned(machine={**MACHINE, "gpu": ("NVIDIA H100",)}, precisions=("tf32",))
    assert {p.decision.outcome for p in with_gpu} == {None}
    with pytest.raises(ConfigurationError, match=r"no cell is left .* --mf-precisions tf32 --mf-devices cpu"):
        planned(precisions=("tf32",), devices=("cpu",))


def test_a_candidate_at_tf32_is_run_on_its_devices_alone():
    candidate = Candidate(Path("/nowhere/other.onnx"), "other", "onnx", "onnx", "tf32", "", ("net",))
    found = [p for p in planned(candidates=[candidate]) if p.cell.candidate]
    assert ids(found) == ["net~other-onnx-tf32-onnxruntime@cuda"]


def test_a_precision_without_devices_of_its_own_runs_on_all():
    torch = registry.backends()["torch"]
    assert torch.runs_on("fp32") == torch.devices
    assert torch.runs_on("tf32") == ("cuda",)


def test_emulated_fp16_is_run_only_on_request():
    old = {"gpu": (), "cpu_flags": ("avx2",)}
    cell = "net-pytorch-fp16-torch@cpu"
    by_default = {p.cell.id: p.decision for p in planned(machine=old)}[cell]
    assert by_default.outcome is Outcome.UNSUPPORTED
    assert by_default.install == "add --mf-slow to run it all the same"
    assert {p.cell.id: p.decision for p in planned(machine=old, slow=True)}[cell].runs


def test_the_runtimes_default_precision_is_opt_in():
    assert not any("-default-" in i for i in ids(planned()))
    assert ids(planned(precisions=("default",))) == ["net-openvino-default-openvino@cpu"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formats": ("onx",)}, "unknown format 'onx'; did you mean 'onnx'?"),
        ({"formats": ("onnx.legcy",)}, "did you mean 'onnx.legacy'?"),
        ({"precisions": ("fp61",)}, "unknown precision 'fp61'; did you mean 'fp16'?"),
        ({"backends": ("onnxruntim",)}, "did you mean 'onnxruntime'?"),
        ({"devices": ("gpu",)}, "unknown device 'gpu'; did you mean 'cuda'?"),
        ({"require": ("tensorrt",)}, "unknown name to require 'tensorrt'"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_suggestion(changes, message):
    with pytest.raises(ConfigurationError) as caught:
        planned(**changes)
    assert message in str(caught.value)


def test_a_selection_that_leaves_nothing_is_an_error():
    with pytest.raises(ConfigurationError, match=r"no cell is left to run .* --mf-formats onnx --mf-backends openvino"):
        planned(formats=("onnx",), backends=("openvino",))


def test_a_candidate_is_a_cell_of_its_own():
    candidate = Candidate(Path("/x/m.onnx"), "m", "onnx", "onnx", "fp16", "", ("net",))
    found = [p for p in planned(candidates=(candidate,)) if p.cell.candidate]
    assert ids(found) == ["net~m-onnx-fp16-onnxruntime@cpu", "net~m-onnx-fp16-onnxruntime@cuda"]
    assert found[0].chain == ()
    assert (found[0].candidate_path, found[0].candidate_kind) == ("/x/m.onnx", "onnx")


def test_a_candidates_device_is_the_only_one():
    candidate = Candidate(Path("/x/m.onnx"), "m", "onnx", "onnx", "fp32", "cpu", ("net",))
    found = [p for p in planned(candidates=(candidate,)) if p.cell.candidate]
    assert [p.cell.device for p in found] == ["cpu"]


def test_planning_a_thousand_models_asks_about_installed_libraries_once():
    asked = []
    sources = [Source(f"m{i}", f"/x/{i}", "onnx", "onnx") for i in range(1000)]
    cells = plan.build_plan(settings(), sources, (), MACHINE, lambda m: asked.append(m) or True).cells
    assert len(cells) == 1000 * len(planned(Source("one", "/x", "onnx", "onnx")))
    assert len(asked) < 100


def test_absent_combinations_have_a_reason():
    reasons = dict(plan.absent("onnx"))
    assert "no chain of converters leads from onnx" in reasons["pytorch at fp32 on torch"]
    assert reasons["onnx at bf16 on onnxruntime"] == "onnxruntime does not declare bf16 for onnx"


def test_duplicate_registration_is_refused(monkeypatch):
    import importlib.metadata

    twin = SimpleNamespace(name="onnx", value="other.module:FORMAT")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [twin] if group.endswith("formats") else [])
    registry.formats.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match="two packages register the format 'onnx'"):
            registry.formats()
    finally:
        registry.formats.cache_clear()


def test_two_families_that_declare_one_name_are_refused(monkeypatch):
    monkeypatch.setattr(registry, "SYSTEMS", ("onnx", "onnx"))
    registry.formats.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match="declare the format 'onnx'; rename one"):
            registry.formats()
    finally:
        registry.formats.cache_clear()
