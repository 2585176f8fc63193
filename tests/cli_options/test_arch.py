"""``--mf-arch``: The callable that builds the module a state dict belongs to."""

from __future__ import annotations

from inner_run import one_sentence

EAGER = (
    "--mf-suites",
    "parity",
    "--mf-formats",
    "pytorch",
    "--mf-precisions",
    "fp32",
    "--mf-backends",
    "torch",
    "--mf-devices",
    "cpu",
)


def test_a_state_dict_is_loaded_into_the_named_architecture(run, state_dict, nets):
    ran = run("--mf-model", state_dict, "--mf-arch", nets, *EAGER)
    assert ran.outcomes == {("weights-pytorch-fp32-torch@cpu", "parity"): "passed"}, ran.text


def test_a_callable_that_is_not_there_ends_the_run_in_one_sentence(run, state_dict, nets):
    one_sentence(run("--mf-model", state_dict, "--mf-arch", "tiny_nets:bild", *EAGER), "bild", "tiny_nets")


def test_a_blank_value_is_refused(run, tiny):
    one_sentence(run("--mf-model", tiny, "--mf-arch", " ", inprocess=True), "--mf-arch", "MODULE:CALLABLE")
