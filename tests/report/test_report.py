"""The report is a replay of the record: every planned cell is shown with its outcome, its reason and its numbers."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from importlib import resources

import jsonschema
import pytest

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.record.read import read
from pytest_modelformats.report import html, markdown, terminal
from pytest_modelformats.report.matrix import matrix
from pytest_modelformats.schema import PRECISIONS, Cell, Outcome, numbers
from pytest_modelformats.schema.outcome import cell_outcome, worst

HOSTILE = "<script>alert('x')</script> | `tick` **bold** [l](javascript:x) \x1b[31mred & \"quoted\""
MODELS = ("resnet50", "encoder")
LANES = {
    ("pytorch", "fp32", ""): ("torch", "torch-compile"),
    ("pytorch", "bf16", ""): ("torch",),
    ("pt2", "fp32", ""): ("torch-export",),
    ("torchscript", "fp32", ""): ("torchscript",),
    ("onnx", "fp32", ""): ("onnxruntime", "openvino", "tensorrt"),
    ("onnx", "fp16", ""): ("onnxruntime", "openvino", "tensorrt"),
    ("openvino", "fp32", ""): ("openvino",),
    ("openvino", "bf16", ""): ("openvino",),
    ("openvino", "fp16-weights", ""): ("openvino",),
    ("onnx", "fp32", "legacy"): ("onnxruntime",),
}
SENTENCES = {
    "failed": "output 'output': the error is 561 times what fp32 rounding explains (limit 4).",
    "crashed": "The worker died from SIGSEGV while it opened the artifact; the bundle is in repro/.",
    "timeout": "No answer within 120 s; the worker's process group was killed.",
    "out-of-memory": "The worker reached its memory limit of 4 GB while converting.",
    "convert-error": "onnx_from_pytorch raised: 'aten::_transformer_encoder_layer_fwd' has no ONNX equivalent.",
    "fallback": "fp32 was asked for, the error is that of bf16 (0.98 times its noise); set INFERENCE_PRECISION_HINT.",
    "inconclusive": "The median's interval is still 9 % wide when the time budget ended.",
    "expected-failure": "Fails as expected: TF32 accumulates differently (https://example.org/issues/7).",
    "unsupported": "OpenVINO has no operator aten::unique_dim.",
    "missing-dependency": "tensorrt is not installed.",
    "no-device": "cuda is not on this machine.",
    "not-measured": "The test asked for no check.",
    "passed": "Every output is within 1.1 times what fp32 rounding explains.",
}
# What becomes of the cells of each model, in the order of LANES: every outcome at least once over the two.
FATES = {
    "resnet50": [
        "passed", "timeout", "passed", "passed", "expected-failure", "passed", "fallback", "no-device",
        "passed", "inconclusive", "no-device", "passed", "passed", "failed", "not-measured",
    ],
    "encoder": [
        "passed", "crashed", "passed", "passed", "out-of-memory", "passed", "passed", "missing-dependency",
        "convert-error", "unsupported", "missing-dependency", "passed", "passed", "passed", "passed",
    ],
}  # fmt: skip


def parity_data(rng, outcome):
    ratio = {"failed": 561.0, "fallback": 31234.0}.get(outcome, rng.uniform(0.8, 1.9))
    output = {
        "name": "output", "outcome": outcome, "failure_kind": "numeric" if outcome == "failed" else None,
        "sentence": SENTENCES[outcome], "error_rms": 1.2e-6 * ratio, "error_max": 6e-6 * ratio, "noise_rms": 1.2e-6,
        "noise_max": 5.1e-6, "noise_ratio": ratio, "point_ratio": ratio * 1.2,
        "effective_precision": "bf16" if outcome == "fallback" else "fp32",
        "flips": 0.25 if outcome == "failed" else 0.0, "elements": 8000,
    }  # fmt: skip
    statement = {"providers": ["CPUExecutionProvider"], "inference_precision": "f32", "nodes": {"cpu": 124}}
    return {
        "outputs": [output], "noise_ratio": ratio, "effective_precision": output["effective_precision"],
        "statement": statement,
    }  # fmt: skip


def latency_data(rng, scale):
    samples = [int(scale * rng.lognormvariate(0, 0.03)) for _ in range(180)] + [int(scale * 3.5)]
    ordered = sorted(samples)
    middle = ordered[90]
    return {
        "latency_p50_ns": middle, "latency_p50_low_ns": ordered[80], "latency_p50_high_ns": ordered[100],
        "latency_mean_ns": sum(samples) / 181, "latency_std_ns": scale * 0.03, "variation": 0.031,
        "latency_p90_ns": ordered[163], "latency_p95_ns": ordered[172], "latency_p99_ns": None,
        "items_per_s": 1e9 / middle, "load_ns": 84_000_000, "first_inference_ns": int(scale * 4), "convert_ns": None,
        "size_bytes": 102_400_000, "idle_rss_bytes": 49_000_000, "peak_rss_bytes": 412_000_000,
        "batch": 1, "threads": 1,
        "warmup_runs": 20, "samples": 181, "samples_ns": samples, "disturbed": "", "pinned": [0],
    }  # fmt: skip


def check(cell, name, outcome, **more):
    line = {
        "kind": "check", "cell": cell, "check": name, "test": f"suites/test_{name}.py::test_it[{cell}]",
        "outcome": outcome, "failure_kind": "numeric" if outcome == "failed" else None,
        "sentence": SENTENCES[outcome], "duration_s": 0.81, "data": {},
    }  # fmt: skip
    return {**line, **more}


def checks_of(rng, cell, fate):
    if fate in {"crashed", "timeout", "out-of-memory", "convert-error", "unsupported"}:
        return [check(cell, name, fate) for name in ("contract", "parity", "latency")]
    if fate == "not-measured":
        return [check(cell, "availability", fate)]
    parity = fate if fate in {"failed", "fallback", "expected-failure"} else "passed"
    latency = fate if fate == "inconclusive" else "passed"
    return [
        check(cell, "contract", "passed", sentence="Names, shapes and types agree."),
        check(cell, "parity", parity, data=parity_data(rng, parity)),
        check(cell, "batch", "not-measured", sentence="The batch is fixed at 1."),
        check(cell, "latency", latency, data=latency_data(rng, rng.choice((9.5e3, 1.2e6, 40.4e6)))),
    ]


def header():
    machine = {
        "cpu": "AMD EPYC 9575F 64-Core Processor", "cores": 2, "memory_bytes": 8_200_000_000, "os": "Linux 6.12",
        "gpu": [], "python": "3.11.7", "cpu_flags": ["avx2", "avx512_bf16", *(f"flag{i}" for i in range(40))],
    }  # fmt: skip
    return {
        "kind": "header", "schema": 1, "run": "20261123-161500-ab12", "started": "2026-11-23T16:15:00+00:00",
        "tool": "0.1.0", "command": ["pytest", "--mf-model", "resnet50.pth"], "machine": machine,
        "versions": {"torch": "2.13.0", "onnx": "1.23.2", "onnxruntime": "1.32.0", "openvino": "2026.4.1"},
        "options": {"threads": 1, "seed": 0, "formats": []},
    }  # fmt: skip


def model(name):
    floors = {"fp32": 1.2e-6, "fp16": 6.1e-3, "bf16": 4.4e-2}
    return {
        "kind": "model", "model": name, "source": f"{name}.pth", "format": "pytorch", "source_kind": "state-dict",
        "sha256": "9f2c" * 16, "inputs": ["input:float32[N,3,224,224]"], "outputs": ["output:float32[N,1000]"],
        "samples": 8, "input_origin": "seeded random (seed 0)",
        "noise": [
            {"output": "output", "precision": p, "noise_rms": n, "noise_max": n * 4.2, "method": "own kernels"}
            for p, n in floors.items()
        ],
    }  # fmt: skip


def planned(name, fate, lane, backend):
    form, precision, route = lane
    device = "cuda" if backend == "tensorrt" else "cpu"
    cell = Cell(name, form, precision, backend, device, route=route)
    decided = fate in {"no-device", "missing-dependency"}
    return {
        "kind": "cell", "cell": cell.id, "model": name, "format": form, "route": route, "precision": precision,
        "backend": backend, "device": device, "environment": "", "candidate": "",
        "chain": [] if form == "pytorch" else [f"{form}_from_pytorch:{precision}"],
        "decision": fate if decided else "run", "reason": SENTENCES[fate] if decided else "",
        "install": "pip install tensorrt" if fate == "missing-dependency" else "",
    }  # fmt: skip


def record():
    """The lines of a whole run."""
    rng = random.Random(0)
    cells, checks, outcomes = [], [], {}
    for name in MODELS:
        fates = iter(FATES[name])
        for lane, backends in LANES.items():
            for backend in backends:
                fate = next(fates)
                line = planned(name, fate, lane, backend)
                cells.append(line)
                outcomes[line["cell"]] = fate
                checks += checks_of(rng, line["cell"], fate) if line["decision"] == "run" else []
    footer = {
        "kind": "footer", "finished": "2026-11-23T16:17:03+00:00", "duration_s": 123.4, "complete": True,
        "totals": {o: list(outcomes.values()).count(o) for o in set(outcomes.values())}, "cells": outcomes,
        "conversions": {"made": 6, "cached": 0}, "exitstatus": 1,
    }  # fmt: skip
    return [header(), *(model(name) for name in MODELS), *cells, *checks, footer]


def small(*checks, **cell):
    """A run of one cell, without a footer."""
    line = {**planned("net", "passed", ("onnx", "fp32", ""), "onnxruntime"), **cell}
    return [header(), line, *checks]


CELL = "net-onnx-fp32-onnxruntime@cpu"
FOOTER = {"kind": "footer", "finished": "2026-11-23T16:17:03+00:00", "duration_s": 1.0, "complete": True,
          "totals": {}, "cells": {}, "conversions": {}, "exitstatus": 0}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(lines, tail=""):
        path = tmp_path / "results.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail, encoding="utf-8")
        return path

    return write


@pytest.fixture
def run(write):
    return read(write(record()))


def rendered(run):
    return {
        "html": html.render(run),
        "markdown": markdown.render(run),
        "terminal": terminal.render(run, 120, color=False),
    }


class Page(HTMLParser):
    """Tags, ids, links and text of a page; refuses tags that do not nest."""

    VOID = frozenset(["meta", "br", "line", "rect"])

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.open, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        self.tags.append(tag)
        self.ids += [facts["id"]] if "id" in facts else []
        self.links += [facts[k] for k in ("href", "src") if k in facts]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"script", "style"}:
            self.words.append(data)


# -- the record ------------------------------------------------------------------------------------


def test_every_line_of_the_sample_fits_the_schema():
    schema = json.loads(resources.files("pytest_modelformats.record").joinpath("record.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for line in record():
        validator.validate(line)


def test_the_schema_knows_what_only_some_lines_carry():
    schema = json.loads(resources.files("pytest_modelformats.record").joinpath("record.schema.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    more = {"conversions": {"made": 1, "cached": 0}, "expectation": "expectations.txt:3"}
    validator.validate(check(CELL, "parity", "expected-failure", **more))
    validator.validate({**model("net"), "truth_method": "float64 kernels"})


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"schema": 2}),
        (0, {"surprise": 1}),
        (1, {"samples": "eight"}),
        (3, {"decision": "perhaps"}),
        (3, {"kind": "verdict"}),
        (-2, {"outcome": "ok"}),
        (-2, {"failure_kind": "style"}),
        (-2, {"data": {"latency_p50_ns": "fast"}}),
        (-1, {"totals": {"good": 1}}),
    ],
)
def test_the_schema_refuses_what_is_not_a_line(index, change):
    schema = json.loads(resources.files("pytest_modelformats.record").joinpath("record.schema.json").read_text("utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate({**record()[index], **change})


def test_the_schema_requires_what_the_reader_requires(write):
    """A line from which a required key is taken is refused by both."""
    schema = json.loads(resources.files("pytest_modelformats.record").joinpath("record.schema.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    for kind, key in [("header", "run"), ("model", "source"), ("cell", "backend"), ("check", "outcome")]:
        lines = record()
        next(line for line in lines if line["kind"] == kind).pop(key)
        assert not all(validator.is_valid(line) for line in lines)
        with pytest.raises(ConfigurationError, match=f"has no '{key}'"):
            read(write(lines))


def test_what_a_conversion_changed_stands_in_the_record_and_the_report(write):
    """By what it was made and what had to be mended; of a conversion that changed nothing, by what alone."""
    schema = json.loads(resources.files("pytest_modelformats.record").joinpath("record.schema.json").read_text("utf-8"))
    place = {"where": "cache", "path": "ab/cd/model.onnx", "key": "ab", "sha256": "ab"}
    mended = {"exporter": "the converter", "repaired": ["casts inserted (2)", HOSTILE], "truncated_values": 3}
    for made, told in ((mended, True), ({"exporter": "the converter"}, False)):
        line = check(CELL, "parity", "passed", data={"artifact": {**place, "conversion": made}})
        jsonschema.Draft202012Validator(schema).validate(line)
        run = read(write(small(line, chain=["onnx_fp16_from_onnx:fp16"])))
        shown = rendered(run)
        assert "</code>, with the converter. " in shown["html"]
        for text in (shown["html"], shown["markdown"]):
            assert (
                "What the converter made did not hold together and was mended: casts inserted (2), " in text
            ) == told
            assert (
                "3 constants beyond what the precision holds were set to the nearest that it holds." in text
            ) == told
            assert "<script>alert" not in text


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "outcomes", "expected"),
    [
        ("run", ["passed", "crashed", "failed"], "crashed"),
        ("run", ["timeout", "out-of-memory"], "out-of-memory"),
        ("run", ["failed", "fallback"], "failed"),
        ("run", ["passed", "fallback", "inconclusive"], "fallback"),
        ("run", ["passed", "inconclusive"], "inconclusive"),
        ("run", ["passed", "unsupported", "not-measured"], "passed"),
        ("run", ["unsupported", "not-measured"], "unsupported"),
        ("run", ["unsupported", "no-device", "missing-dependency"], "missing-dependency"),
        ("run", ["passed", "expected-failure"], "expected-failure"),
        ("run", ["not-measured"], "not-measured"),
        ("run", [], "not-measured"),
        ("no-device", [], "no-device"),
        ("no-device", ["no-device"], "no-device"),
        ("missing-dependency", ["failed"], "failed"),
    ],
)
def test_the_worst_check_decides_a_cell(decision, outcomes, expected):
    assert worst(decision, outcomes) is Outcome(expected)
    checks = [(f"check-{number}", outcome) for number, outcome in enumerate(outcomes)]
    assert cell_outcome(decision, checks) is Outcome(expected)


@pytest.mark.parametrize(
    ("checks", "asked", "expected"),
    [
        ({"contract": "passed", "parity": "unsupported", "latency": "passed"}, True, "unsupported"),
        ({"contract": "passed", "parity": "not-measured"}, True, "not-measured"),
        ({"contract": "passed", "parity": "inconclusive", "batch": "not-measured"}, True, "inconclusive"),
        ({"contract": "failed", "parity": "unsupported"}, True, "failed"),
        ({"contract": "passed", "parity": "expected-failure"}, True, "expected-failure"),
        ({"contract": "passed", "parity": "passed", "batch": "unsupported"}, True, "passed"),
        ({"batch": "expected-failure", "parity": "not-measured"}, True, "not-measured"),
        # The run ended before its turn, or nobody asked for it.
        ({"contract": "passed"}, True, "not-measured"),
        ({"contract": "failed"}, True, "failed"),
        ({"contract": "unsupported"}, True, "unsupported"),
        ({"contract": "passed", "latency": "passed"}, False, "passed"),
        ({"test_of_the_user": "passed"}, False, "passed"),
        # An older record does not say what was asked for; its own line of the check does.
        ({"contract": "passed", "parity": "unsupported"}, False, "unsupported"),
    ],
)
def test_no_check_makes_a_pass_of_a_cell_whose_parity_was_not_checked(checks, asked, expected):
    assert cell_outcome("run", checks.items(), parity_asked=asked) is Outcome(expected)


def test_every_cell_ends_in_the_outcome_it_was_given(run):
    stated = record()[-1]["cells"]
    assert {cell.cell: cell.outcome.value for cell in run.cells} == stated
    assert set(stated.values()) == {o.value for o in Outcome}, "the sample has lost an outcome"


def test_totals_add_up_to_the_plan(run):
    assert sum(run.totals.values()) == len(run.cells) == 30
    assert run.totals["no-device"] == 2
    assert run.summary.startswith("30 cells: 16 passed, 1 failed")
    assert run.summary.endswith("complete in 2 min 3 s")
    assert run.doubts == ()


def test_a_required_cell_that_did_not_run_is_a_failure_with_its_install_line(write):
    lines = small(
        check(CELL, "availability", "failed", sentence="onnxruntime is required and not installed."),
        decision="missing-dependency", reason="not installed", install="pip install onnxruntime",
    )  # fmt: skip
    run = read(write([*lines, FOOTER]))
    assert [c.cell for c in run.failures] == [CELL]
    assert [(g.word, g.install) for g in run.not_run] == [("missing-dependency", "pip install onnxruntime")]


def test_identical_reasons_are_one_group(run):
    groups = {(g.word, g.reason): len(g.cells) for g in run.not_run}
    assert groups[("no-device", SENTENCES["no-device"])] == 2
    assert groups[("missing-dependency", SENTENCES["missing-dependency"])] == 2
    assert sum(groups.values()) == 6


def test_a_check_without_numbers_leaves_them_absent(write):
    crashed = check(CELL, "parity", "crashed")
    batch = check(CELL, "batch", "passed", data=parity_data(random.Random(0), "passed"))
    cell = read(write([*small(crashed, batch), FOOTER])).cells[0]
    assert cell.parity is None, "another check's numbers are not the parity check's"
    assert cell.latency is None


def test_numbers_of_a_users_own_test_are_the_cells(write):
    own = check(CELL, "test_my_model", "passed", data=parity_data(random.Random(0), "passed"))
    assert read(write([*small(own), FOOTER])).cells[0].parity.flips == 0.0


def test_rows_keep_precision_order_and_candidates_come_last(write):
    cells = [planned("net", "passed", ("onnx", p, ""), "onnxruntime") for p in reversed(PRECISIONS)]
    candidate = {**cells[0], "cell": "net~a-onnx-fp32-onnxruntime@cpu", "candidate": "a", "precision": "fp32"}
    table = matrix(read(write([header(), candidate, *cells])).cells)
    assert [row.precision for row in table.rows] == [*PRECISIONS, "fp32"]
    assert table.rows[-1].variant == "~a onnx"


def test_a_torn_last_line_is_left_out_and_noted(write):
    lines = record()
    run = read(write(lines[:-1], tail='{"kind":"footer","fin'))
    assert run.torn
    assert not run.complete
    assert any("cut off" in doubt for doubt in run.doubts)
    assert all("cut off" in text for text in rendered(run).values())


def test_a_line_torn_inside_a_character_is_left_out(tmp_path):
    path = tmp_path / "results.jsonl"
    whole = "".join(json.dumps(line) + "\n" for line in small()).encode()
    path.write_bytes(whole + '{"kind":"check","sentence":"µ'.encode()[:-1])
    assert read(path).torn


def test_a_last_line_without_a_line_end_is_still_a_line(write):
    assert read(write(record()[:-1], tail=json.dumps(record()[-1]))).complete


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("not json", "line 1 is not a JSON object"),
        ("[1]\n", "line 1 has no 'kind'"),
        ('{"kind":"footer"}\n', "line 1 comes before the header"),
        ("HEADER\nHEADER\n", "line 2 is a second header"),
        ("HEADER\ntorn\nHEADER\n", "line 2 is not a JSON object"),
        ("HEADER\ntorn\n", "line 2 is not a JSON object"),
        ('HEADER\n{"kind":"mood"}\n', "line 2 is of the unknown kind 'mood'"),
        ('HEADER\n{"kind":"check","cell":"x","check":"parity","outcome":"passed"}\n', "line 2 checks the cell 'x'"),
        ("HEADER\nCELL\nCELL\n", "line 3 plans the cell"),
        ("HEADER\nFOOTER\nCELL\n", "line 3 comes after the footer"),
        ('HEADER\nCELL\n{"kind":"check","cell":"CID","check":"p","outcome":"fine"}\n', "'fine' for 'outcome'"),
        ('HEADER\nCELL\n{"kind":"check","cell":"CID","check":"p","outcome":"passed","duration_s":NaN}\n', "not a JSON"),
        ('HEADER\nCELL\n{"kind":"check","cell":"CID","check":"p","outcome":"passed","duration_s":1e999}\n', "'inf'"),
        ('HEADER\nCELL\n{"kind":"check","cell":"CID","check":"p","outcome":"passed","duration_s":true}\n', "'True'"),
        ('HEADER\nCELL\n{"kind":"check","cell":"CID","check":"l","outcome":"passed","data":{"latency_p50_ns":"1"}}\n',
         "'1' for 'latency_p50_ns'"),
        ("OTHER\n", "says schema 99"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_record_is_refused_in_a_sentence(tmp_path, text, problem):
    path = tmp_path / "results.jsonl"
    parts = {
        "HEADER": json.dumps(header()), "CELL": json.dumps(small()[1]), "FOOTER": json.dumps(FOOTER), "CID": CELL,
        "OTHER": json.dumps({**header(), "schema": 99}),
    }  # fmt: skip
    path.write_text(re.sub("HEADER|CELL|FOOTER|CID|OTHER", lambda m: parts[m[0]], text), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot be read .* results\.jsonl"):
        read(tmp_path / "nothing.jsonl")


def test_a_footer_that_disagrees_with_the_lines_is_pointed_out(write):
    lines = record()
    first = next(iter(lines[-1]["cells"]))
    lines[-1]["cells"][first] = "crashed"
    run = read(write(lines))
    assert run.doubts[0].startswith(f"The footer and the lines disagree about 1 cell, the first of them {first}")
    assert all("disagree about 1 cell" in text for text in rendered(run).values())


# -- all three reports -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["html", "markdown", "terminal"])
def test_every_outcome_and_every_reason_is_visible(run, form):
    text = rendered(run)[form]
    flat = " ".join(Page(text).words) if form == "html" else text
    flat = re.sub(r"\s+", " ", flat.replace("\\", ""))
    for outcome in Outcome:
        word = outcome.value
        assert word in flat, word
        if outcome is not Outcome.PASSED:
            assert SENTENCES[word] in flat, word
    assert "pip install tensorrt" in flat


@pytest.mark.parametrize("form", ["html", "markdown", "terminal"])
@pytest.mark.parametrize("footer", [[], [{**FOOTER, "complete": False, "exitstatus": 2}]])
def test_an_incomplete_run_says_so_and_shows_no_pass_for_what_did_not_run(write, form, footer):
    text = rendered(read(write([*small(), *footer])))[form]
    assert "INCOMPLETE" in text
    assert "not run (interrupted)" in text
    assert not re.search(r"[1-9]\d* passed", text)
    assert ("exit status 2" in text) == bool(footer)


def test_a_complete_run_is_not_called_incomplete(run):
    for text in rendered(run).values():
        assert "INCOMPLETE" not in text
        assert "interrupted" not in text


@pytest.mark.parametrize("form", ["html", "markdown", "terminal"])
def test_absent_numbers_are_dashes(write, form):
    bare = read(write([*small(check(CELL, "contract", "passed")), FOOTER]))
    line = {
        "html": r'<div class="nums"><span>–</span><span>–</span><span>–</span></div>',
        "markdown": r"\| passed \| – \| – \| – \| – \| – \|",
        "terminal": r"passed\s+– · –",
    }[form]
    assert re.search(line, rendered(bare)[form])


@pytest.mark.parametrize("form", ["html", "markdown", "terminal"])
def test_an_empty_plan_is_reported(write, form):
    assert "0 cells: none planned" in rendered(read(write([header(), FOOTER])))[form]


# -- HTML ------------------------------------------------------------------------------------------


def hostile(write):
    lines = small(check(CELL, HOSTILE, "failed", sentence=HOSTILE, data=parity_data(random.Random(0), "failed")))
    lines[1] |= {"cell": CELL + HOSTILE, "model": HOSTILE, "environment": HOSTILE}
    lines[2] |= {"cell": CELL + HOSTILE}
    lines[2]["data"]["statement"] = {HOSTILE: [HOSTILE]}
    other = {
        **lines[1],
        "cell": "o",
        "backend": "o",
        "decision": "missing-dependency",
        "reason": HOSTILE,
        "install": HOSTILE,
    }
    lines[0] |= {"command": [HOSTILE], "versions": {HOSTILE: HOSTILE}, "run": HOSTILE, "started": HOSTILE}
    noisy = {**model(HOSTILE), "source": HOSTILE, "input_origin": HOSTILE}
    return read(write([lines[0], noisy, lines[1], other, lines[2]]))


def test_hostile_text_stays_text_in_html(write):
    page = Page(html.render(hostile(write)))
    assert page.tags.count("script") == 1
    assert "".join(page.words).count("<script>alert('x')</script>") >= 10


def test_the_page_is_well_formed_and_needs_nothing_else(run):
    text = html.render(run)
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") for link in page.links), page.links
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert not re.search(r"@import|url\(|https?://(?!example\.org/issues/7)", text)


def test_every_cell_of_the_matrix_leads_to_its_details(run):
    page = Page(html.render(run))
    for cell in run.cells:
        assert "#" + html.anchor(cell.cell) in page.links
        assert html.anchor(cell.cell) in page.ids


def test_a_failure_looks_like_one_with_and_without_its_kind(run):
    assert re.search(r'class="badge bad"><i aria-hidden="true">✕</i> failed \(numeric\)', html.render(run))
    assert {html.tone(o.value) for o in Outcome} == {"good", "bad", "unsure", "none"}
    assert html.tone("not run (interrupted)") == "none"


def test_a_disturbed_measurement_says_so(write):
    data = {**latency_data(random.Random(0), 1e6), "disturbed": "foreign load of 0.8 cores"}
    text = html.render(read(write([*small(check(CELL, "latency", "passed", data=data)), FOOTER])))
    assert "foreign load of 0.8 cores" in text


def test_anchors_of_different_cells_differ():
    names = ["a b", "a:20b", "a%20b", "a_b", "a+b", "a<b", "ä"]
    assert len({html.anchor(name) for name in names}) == len(names)
    assert all(re.fullmatch(r"[\w:@+~.-]+", html.anchor(name)) for name in names)


def test_a_histogram_counts_every_sample():
    shape = html.histogram([100, 110, 150, 150, 160, 5000])
    assert shape.beyond == 1
    assert shape.high_ns == 410
    assert sum(round(height / shape.height * 2) for _, height in shape.bars) == 5
    assert html.histogram([7, 7, 7]).bars == ((0.0, 64),)
    assert html.histogram([7]) is None


# -- Markdown --------------------------------------------------------------------------------------


def test_the_markdown_table_has_a_row_per_cell_and_even_columns(run):
    before, _, measured = markdown.render(run).partition("<details><summary>What was measured")
    table = [line for line in before.splitlines() if line.startswith("|")]
    assert len([line for line in table if line.startswith("| `")]) == len(run.cells)
    rows = [line for line in measured.partition("</details>")[0].splitlines() if line.startswith("| `")]
    assert len(rows) == len([cell for cell in run.cells if cell.latency])
    assert len({line.count("|") for line in rows}) == 1
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table[:32]} == {8}


def test_hostile_text_stays_text_in_markdown(write):
    text = markdown.render(hostile(write))
    outside = re.sub(r"(`+)[^`].*?\1", "", text)
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)\[l\]", outside)
    assert "**bold**" not in outside
    rows = [line for line in text.splitlines() if line.startswith("| `` net")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 8


def test_a_summary_of_thousands_of_cells_fits_into_a_job_summary(write):
    lines = [header(), *({**small()[1], "cell": f"net{i}-onnx", "device": f"d{i}"} for i in range(6000))]
    text = markdown.render(read(write([*lines, FOOTER])))
    assert len(text.encode()) < 2**20
    assert "further cells" in text


# -- terminal --------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_terminal_report_keeps_to_its_width(run, width):
    lines = terminal.render(run, width, color=False).splitlines()
    assert max(len(line) for line in lines) <= width
    assert not any("…" in line for line in lines), "a word was cut"
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_folds_the_matrix_between_columns_and_never_inside_one(run, width):
    def entries(at):
        return sorted(re.findall(r"[\d.–]+ · [\d.–]+(?: [µm]s)?", terminal.render(run, at, color=False)))

    assert entries(width) == entries(200)
    assert len(entries(width)) == sum(cell.latency is not None for cell in run.cells)


def test_rows_without_a_cell_in_the_chosen_columns_are_left_out(run):
    cells = [cell for cell in run.cells if cell.model == "encoder"]
    assert [row.variant for row in matrix(cells, ["torch-export@cpu"]).rows] == ["pt2"]


def test_colour_is_only_there_when_asked_for(run):
    assert "\x1b[" in terminal.render(run, 80, color=True)
    assert "\x1b" not in terminal.render(run, 80, color=False)


def test_hostile_text_does_not_reach_the_terminal(write):
    text = terminal.render(hostile(write), 100, color=False)
    assert "\x1b" not in text
    assert "<script>" in text


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.duration(None), "–"), (numbers.duration(0), "0 ns"), (numbers.duration(850), "850 ns"),
        (numbers.duration(999.6), "1.00 µs"), (numbers.duration(9_500), "9.50 µs"),
        (numbers.duration(999_960), "1.00 ms"), (numbers.duration(40_412_000), "40.4 ms"),
        (numbers.duration(12.34e9), "12.3 s"), (numbers.duration(200e9), "3 min 20 s"),
        (numbers.seconds(0.81), "810 ms"),
        (numbers.size(None), "–"), (numbers.size(0), "0 B"), (numbers.size(512), "512 B"),
        (numbers.size(1536), "1.54 KB"), (numbers.memory(None), "–"), (numbers.memory(0), "< 1 MB"),
        (numbers.memory(999_999), "< 1 MB"), (numbers.memory(1_300_000), "1.30 MB"),
        (numbers.size(102_400_000), "102 MB"), (numbers.size(8.2e9), "8.20 GB"), (numbers.size(4.2e12), "4200 GB"),
        (numbers.ratio(None), "–"), (numbers.ratio(0), "0"), (numbers.ratio(1.1), "1.10"),
        (numbers.ratio(9.996), "10.0"),
        (numbers.ratio(99.96), "100"), (numbers.ratio(561), "561"), (numbers.ratio(3.1e5), "3.1e5"),
        (numbers.ratio(0.0004), "4.0e-4"), (numbers.share(0), "0 %"), (numbers.share(0.0000125), "0.001 %"),
        (numbers.share(0.125), "12.5 %"), (numbers.share(None), "–"), (numbers.magnitude(1.23e-6), "1.2e-6"),
        (numbers.rate(24.7), "24.7 /s"), (numbers.rate(105_263.2), "105,263 /s"), (numbers.plural(1, "cell"), "1 cell"),
        (numbers.moment("2026-11-23T17:15:00+01:00"), "2026-11-23 16:15:00 UTC"), (numbers.moment("soon"), "soon"),
    ],
)  # fmt: skip
def test_numbers_carry_their_unit(written, expected):
    assert written == expected


def test_free_parts_are_written_in_words():
    assert numbers.fact("memory_bytes", 8.2e9) == ("memory", "8.20 GB")
    assert numbers.fact("gpu", []) == ("gpu", "none")
    assert numbers.fact("on_s", value=True) == ("on s", "yes")
    assert numbers.fact("nodes", {"cpu": 3, "cuda": None}) == ("nodes", "cpu: 3; cuda: –")


def test_a_column_of_which_nothing_was_to_run_is_not_in_the_matrix(tmp_path):
    """The cells of a device that is not there stand under "Not run, and why" alone."""
    ran = {"kind": "cell", "cell": "m-onnx-fp32-onnxruntime@cpu", "model": "m", "format": "onnx", "route": ""}
    ran |= {"precision": "fp32", "backend": "onnxruntime", "device": "cpu", "environment": "", "candidate": ""}
    ran |= {"chain": [], "decision": "run", "reason": "", "install": ""}
    other = {
        **ran,
        "cell": "m-onnx-fp32-onnxruntime@cuda",
        "device": "cuda",
        "decision": "no-device",
        "reason": "no GPU",
    }
    header = {
        "kind": "header",
        "schema": 1,
        "run": "r",
        "started": "2026-01-01T00:00:00+00:00",
        "tool": "0",
        "command": [],
    }
    header |= {"machine": {"cpu": "x"}, "versions": {}, "options": {}}
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, ran, other)))
    page = html.render(read(path))
    assert '<th scope="col">onnxruntime@cpu' in page
    assert '<th scope="col">onnxruntime@cuda' not in page
    assert "m-onnx-fp32-onnxruntime@cuda" in page
    assert "no GPU" in page


def test_the_page_says_at_its_top_which_gpu_it_was(tmp_path):
    def top(gpu):
        head = {**header(), "machine": {**header()["machine"], "gpu": gpu}}
        path = tmp_path / "results.jsonl"
        path.write_text(json.dumps(head) + "\n")
        return html.render(read(path)).partition("</nav>")[0]

    assert "on AMD EPYC 9575F 64-Core Processor with NVIDIA H100 80GB HBM3." in top(["NVIDIA H100 80GB HBM3"])
    assert "on AMD EPYC 9575F 64-Core Processor." in top([])
