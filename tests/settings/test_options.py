"""The option table: one line per option, everything else follows from it."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.settings import options
from pytest_modelformats.settings.nouns import Settings


class Parser:
    """As much of pytest's parser as ``add_options`` uses."""

    def __init__(self):
        self.argparse = argparse.ArgumentParser()
        self.group = None

    def getgroup(self, name, description=""):
        self.group = name
        return self

    def addoption(self, *names, **attributes):
        self.argparse.add_argument(*names, **attributes)


def parse(*arguments):
    parser = Parser()
    options.add_options(parser)
    return parser, options.given(parser.argparse.parse_args(arguments))


def test_options_lie_in_their_own_group():
    assert parse()[0].group == "modelformats"


def test_nothing_is_given_by_an_empty_command_line():
    assert parse()[1] == {}


def test_repeatable_options_collect_their_values():
    assert parse("--mf-model", "a.onnx", "--mf-model", "b.onnx")[1] == {"model": ["a.onnx", "b.onnx"]}


def test_flags_need_no_value():
    assert parse("--mf-all-routes", "--mf-trust")[1] == {"all_routes": True, "trust": True}


def test_dashes_of_a_flag_are_underscores_of_its_key():
    assert parse("--mf-time-budget", "0.5", "--mf-ort-optimization", "basic")[1] == {
        "time_budget": "0.5",
        "ort_optimization": "basic",
    }


def test_help_can_be_formatted_and_names_every_option():
    parser, _ = parse()
    text = parser.argparse.format_help()
    assert all(option.flag in text for option in options.OPTIONS)
    assert "80 %" in text


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.key)
def test_help_says_what_the_option_does_and_its_default(option):
    assert option.help.endswith(".")
    assert "None" not in option.full_help
    assert "Default: " in option.full_help


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.key)
def test_defaults_of_the_table_are_those_of_the_settings(option):
    settings = Settings(rootdir=None, cache=None, report_dir=None, memory_bytes=0)
    name = f"{option.key}_s" if option.kind == "seconds" else option.key
    if option.default is not None and name != "report_dir" and hasattr(settings, name):
        assert getattr(settings, name) == option.default


def test_keys_are_unique():
    assert len(options.BY_KEY) == len(options.OPTIONS)


def test_importing_the_options_loads_nothing_heavy():
    options_file = "pytest_modelformats.settings.options"
    code = f"import sys; before = set(sys.modules); import {options_file}; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    own = {name for name in loaded if name.startswith("pytest_modelformats")}
    assert own == {"pytest_modelformats", "pytest_modelformats.errors", "pytest_modelformats.settings", options_file}
    assert {name.partition(".")[0] for name in loaded} - own <= set(sys.stdlib_module_names) | {"pytest_modelformats"}


def test_known_names_are_accepted():
    options.validate_names("format", ["onnx", "onnx.legacy"], {"onnx", "onnx.legacy", "pt2"})


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ConfigurationError, match=r"'onxx' is not a known format; did you mean 'onnx'\?"):
        options.validate_names("format", ["onxx"], ["onnx", "openvino"])
