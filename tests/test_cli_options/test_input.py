"""``--mf-input``: An input as name:dtype[dims]; a letter is a dimension that may vary, {low..high} bounds integers."""

from __future__ import annotations

from inner_run import PARITY, one_sentence


def test_the_specification_replaces_what_the_model_states(run, tiny):
    ran = run("--mf-model", tiny, "--mf-input", "x:float32[2,4]", *PARITY)
    assert ran.status == 0, ran.text
    assert ran.of("model")[0]["inputs"] == ["x:float32[2,4]"]


def test_an_unknown_dtype_is_refused_with_an_example(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-input", "x:float33[N,4]")
    assert "'x:float33[N,4]' is not an input specification" in sentence
    assert "input:float32[N,3,224,224]" in sentence


def test_a_name_that_the_model_does_not_have_is_refused_with_those_it_has(run, tiny):
    one_sentence(run("--mf-model", tiny, "--mf-input", "z:float32[N,4]", *PARITY), "'z'", "its inputs are x")
