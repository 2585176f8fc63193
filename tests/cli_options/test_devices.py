"""``--mf-devices``: Only these devices."""

from __future__ import annotations


def test_only_the_named_devices_have_cells(collected, tiny):
    everywhere = collected("--mf-model", tiny, "--mf-suites", "parity")
    on_cpu = collected("--mf-model", tiny, "--mf-suites", "parity", "--mf-devices", "cpu")
    assert any("@cuda" in item for item in everywhere)
    assert on_cpu == [item for item in everywhere if "@cpu]" in item]


def test_an_unknown_name_is_refused_with_the_known_ones(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-devices", "quantum")
    assert "unknown device 'quantum'; known are" in sentence
    assert "cpu" in sentence
