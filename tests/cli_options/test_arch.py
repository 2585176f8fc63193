"""``--mf-arch``: The callable that builds the module a state dict belongs to."""

from __future__ import annotations

import torch
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


def test_the_entry_of_a_checkpoint_that_was_taken_is_recorded_and_shown(run, state_dict, nets, pytester):
    torch.save({"model_state": torch.load(state_dict), "epoch": 3}, pytester.path / "checkpoint.pth")
    ran = run("--mf-model", "checkpoint.pth", "--mf-arch", nets, *EAGER)
    assert ran.outcomes == {("checkpoint-pytorch-fp32-torch@cpu", "parity"): "passed"}, ran.text
    said = "Its weights are the entry 'model_state' of the file."
    assert ran.of("model")[0]["notes"] == [said]
    assert said.replace("'", "&#39;") in (ran.folder / "index.html").read_text()


def test_a_callable_that_is_not_there_ends_the_run_in_one_sentence(run, state_dict, nets):
    one_sentence(run("--mf-model", state_dict, "--mf-arch", "tiny_nets:bild", *EAGER), "bild", "tiny_nets")


def test_a_blank_value_is_refused(run, tiny):
    one_sentence(run("--mf-model", tiny, "--mf-arch", " ", inprocess=True), "--mf-arch", "MODULE:CALLABLE")
