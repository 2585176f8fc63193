"""``--mf-all-routes``: Also plan every way of reaching a format that is not its default one."""

from __future__ import annotations

CHOSEN = ("--mf-formats", "onnx", "--mf-precisions", "fp32", "--mf-backends", "onnxruntime", "--mf-devices", "cpu")


def test_every_way_of_reaching_a_format_has_its_cell(cells, nets):
    default = cells("--mf-model", nets, *CHOSEN)
    every = cells("--mf-model", nets, *CHOSEN, "--mf-all-routes")
    assert default == ["build-onnx-fp32-onnxruntime@cpu"]
    assert set(every) > {*default, "build-onnx.legacy-fp32-onnxruntime@cpu"}


def test_a_value_other_than_true_or_false_is_refused(refusal, tiny, pytester):
    (pytester.path / "modelformats.toml").write_text("all_routes = 1")
    assert "'all_routes' is 1 (a whole number); expected true or false" in refusal("--mf-model", tiny)
