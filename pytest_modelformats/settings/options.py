"""Every ``--mf-*`` option as one table, and the settings that they resolve to.

Standard library only: ``pytest_addoption`` imports this module in every pytest run of
everyone who has the plugin installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError

if TYPE_CHECKING:
    import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest


PREFIX = "--mf-"
# What makes another plan than the configuration's own.
NARROWS = ("model", "candidate", "formats", "precisions", "backends", "devices", "cells", "env", "all_routes", "slow")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: on the command line ``--mf-<key>`` (with dashes), in TOML ``key``.

    ``kind`` is ``text``, ``texts`` (repeatable), ``names`` (comma list), ``flag``, ``integer``,
    ``integers`` (comma list), ``seconds``, ``size`` (such as 8GB), ``folder``, ``file``, ``files``
    (repeatable), ``database``, ``choice`` or ``margins``.
    ``default_text`` says the default in words where the value alone would not.
    ``off``: 0 is a value too, and switches it off.
    ``selects``: the option decides which cells there are, so ``modelformats plan`` has it too.
    """

    key: str
    kind: str
    help: str
    metavar: str = ""
    default: Any = None
    default_text: str = ""
    choices: tuple[str, ...] = ()
    minimum: int = 0
    off: bool = False
    selects: bool = False

    @property
    def flag(self) -> str:
        """The option as it is written on the command line."""
        return PREFIX + self.key.replace("_", "-")

    @property
    def dest(self) -> str:
        """The attribute of ``config.option`` that holds what the command line said."""
        return f"mf_{self.key}"

    @property
    def repeatable(self) -> bool:
        """Whether the option may be given several times."""
        return self.kind in {"texts", "files"}

    @property
    def full_help(self) -> str:
        """What the option does, and its default."""
        return f"{self.help} Default: {self.default_text or self.default}."


OPTIONS: tuple[Option, ...] = (
    Option(
        "model",
        "texts",
        "A model to test: a file, a folder of models, or module:callable that builds one. Repeatable. "
        "Example: --mf-model resnet50.onnx.",
        "MODEL",
        default_text="the models of the configuration file",
    ),
    Option(
        "arch",
        "text",
        "The callable that builds the module a state dict belongs to. Example: --mf-arch myproject.nets:resnet50.",
        "MODULE:CALLABLE",
        default_text="none, which is enough for every file but a state dict",
        selects=True,
    ),
    Option(
        "input",
        "texts",
        "An input as name:dtype[dims]; a letter is a dimension that may vary, {low..high} bounds integers. "
        "Repeatable, in the model's order. Example: --mf-input 'ids:int64[N,128]{0..30521}'.",
        "SPEC",
        default_text="what the model states",
        selects=True,
    ),
    Option(
        "data",
        "text",
        "Real samples to judge on: an .npz with one array per input (and 'labels'), a folder of <input>.npy, or "
        "module:callable returning a dict of arrays. Example: --mf-data digits.npz.",
        "DATA",
        default_text="seeded random samples",
    ),
    Option(
        "trust",
        "flag",
        "Allow loading models that execute code they carry, such as pickled modules. Only for files you trust.",
        default=False,
        default_text="off",
        selects=True,
    ),
    Option(
        "golden",
        "files",
        "A golden bundle to judge candidates by, in place of the model and its framework ('modelformats golden export' "
        "writes it). Repeatable. Example: --mf-golden resnet50.golden --mf-candidate model.onnx.",
        "FILE",
        default_text="none",
        selects=True,
    ),
    Option(
        "candidate",
        "texts",
        "An artifact you already have, judged against the model as if converted here. Repeatable. "
        "Example: --mf-candidate model_fp16.onnx,precision=fp16,device=cpu (and ,model=NAME with several models).",
        "FILE[,KEY=VALUE...]",
        default_text="none",
        selects=True,
    ),
    Option(
        "formats",
        "names",
        "Only these formats; format.route asks for one way of converting. Example: --mf-formats onnx,onnx.legacy.",
        "NAMES",
        default=(),
        default_text="all, each by its default route",
        selects=True,
    ),
    Option(
        "precisions",
        "names",
        "Only these precisions. Example: --mf-precisions fp32,fp16.",
        "NAMES",
        default=(),
        default_text="all",
        selects=True,
    ),
    Option(
        "backends",
        "names",
        "Only these backends. Example: --mf-backends onnxruntime,openvino.",
        "NAMES",
        default=(),
        default_text="all",
        selects=True,
    ),
    Option(
        "devices",
        "names",
        "Only these devices. Example: --mf-devices cpu.",
        "NAMES",
        default=(),
        default_text="all",
        selects=True,
    ),
    Option(
        "env",
        "texts",
        "An environment with other versions, made on request: cells of the backends that its requirements name run "
        "there too, as CELL+NAME. A name alone selects one of the configuration, 'none' runs none. Repeatable. "
        "Example: --mf-env 'ort-1.26=onnxruntime==1.26.0'.",
        "NAME[=REQUIREMENTS]",
        default_text="the environments of the configuration file",
        selects=True,
    ),
    Option(
        "cells",
        "names",
        "Only the cells whose ids one of these globs matches; each has to match one. "
        "Example: --mf-cells '*-onnx-*@cpu,*-fp32-torch@cpu'.",
        "GLOBS",
        default=(),
        default_text="all",
        selects=True,
    ),
    Option(
        "suites",
        "names",
        "Only these suites. Example: --mf-suites parity,latency.",
        "NAMES",
        default=(),
        default_text="all but threads, and throughput only with --mf-batch or --mf-concurrency",
    ),
    Option(
        "all_routes",
        "flag",
        "Also plan every way of reaching a format that is not its default one.",
        default=False,
        default_text="off",
        selects=True,
    ),
    Option(
        "require",
        "names",
        "Names (formats, precisions, backends, devices, environments) that must run: 'not run' becomes a failure for "
        "them. Example: --mf-require onnx,openvino.",
        "NAMES",
        default=(),
        default_text="none",
        selects=True,
    ),
    Option(
        "opset",
        "integer",
        "The ONNX opset to export. Example: --mf-opset 18.",
        "N",
        default_text="the exporter's own",
        minimum=7,
    ),
    Option("static", "flag", "Export fixed shapes instead of dynamic ones.", default=False, default_text="off"),
    Option("threads", "integer", "Threads a backend may use while it is timed.", "N", default=1, minimum=1),
    Option("samples", "integer", "How many seeded samples parity is judged on.", "N", default=8, minimum=1),
    Option("seed", "integer", "The seed of the samples.", "N", default=0),
    Option(
        "fuzz",
        "integer",
        "How many generated inputs a cell is judged on beside the samples; 0 generates none. Example: --mf-fuzz 200.",
        "N",
        default_text="5 as far as they take 2 s, or none where hypothesis is not installed",
    ),
    Option(
        "fuzz_budget",
        "seconds",
        "Seconds that generating, judging and shrinking inputs may take per cell.",
        "SECONDS",
        default=60.0,
    ),
    Option(
        "batch",
        "integers",
        "Batch sizes whose throughput is measured. Example: --mf-batch 1,8,32.",
        "SIZES",
        default=(),
        default_text="none; 1,8 where the throughput suite is named",
        minimum=1,
    ),
    Option(
        "concurrency",
        "integers",
        "Numbers of requests in flight on one session whose throughput is measured, by a thread per request and by "
        "the runtime's own asynchronous mode. Example: --mf-concurrency 1,2,4.",
        "COUNTS",
        default=(),
        default_text="none; 1,2 where the throughput suite is named",
        minimum=1,
    ),
    Option("time_budget", "seconds", "Seconds spent on timing one cell.", "SECONDS", default=2.0),
    Option(
        "localise_budget",
        "seconds",
        "Seconds spent on finding the first wrong operator of a cell whose numbers are wrong; 0 switches it off.",
        "SECONDS",
        default=20.0,
        off=True,
    ),
    Option(
        "slow",
        "flag",
        "Also run precisions that this CPU only emulates, such as fp16 without fp16 instructions.",
        default=False,
        default_text="off",
        selects=True,
    ),
    Option("timeout", "seconds", "Seconds a worker may take to answer one request.", "SECONDS", default=600.0),
    Option(
        "memory",
        "size",
        "Memory one worker may use. Example: --mf-memory 8GB.",
        "SIZE",
        default_text="80 % of the machine's memory",
    ),
    Option(
        "cache",
        "folder",
        "Folder that keeps converted artifacts between runs.",
        "DIR",
        default_text="modelformats in the user's cache folder",
    ),
    Option(
        "reuse",
        "flag",
        "Show passes and measurements of earlier runs again where nothing that they depend on has changed since: "
        "model, samples, options, libraries, machine, and this tool. What did not pass runs again.",
        default=False,
        default_text="off",
    ),
    Option(
        "history",
        "database",
        "The database that every run is appended to: a file (SQLite), postgresql://user@host/database, or none. "
        "'modelformats history' shows what is in it. Example: --mf-history ci.sqlite.",
        "FILE|URL|none",
        default="",
        default_text="history.sqlite in the cache folder",
    ),
    Option("report_dir", "folder", "Folder that the records and reports are written to.", "DIR", default="reports"),
    Option(
        "isolate",
        "choice",
        "process: every runtime in its own worker process; none: everything in the pytest process, for a debugger.",
        default="process",
        choices=("process", "none"),
    ),
    Option(
        "ort_optimization",
        "choice",
        "Graph optimisation level of ONNX Runtime.",
        default="all",
        choices=("all", "extended", "basic", "disable"),
    ),
    Option(
        "bundles",
        "integer",
        "How many reproduction bundles a run may write: one per failing cell, of its first failing check; 0 for none.",
        "N",
        default=10,
    ),
    Option(
        "expectations",
        "files",
        "A file of known failures, one 'cell-glob  check  # reason (link)' per line. Repeatable.",
        "FILE",
        default=(),
        default_text="none",
    ),
    Option(
        "update_expectations",
        "flag",
        "Rewrite the expectation files from what this run finds: lines that still hold stay, those of which nothing "
        "fails any more go, new failures are added to the last file. Only after a whole run.",
        default=False,
        default_text="off",
    ),
    Option(
        "baseline",
        "text",
        "Compare every cell with an earlier run: a saved name, a run's folder, id or results.jsonl, or 'latest'; or, "
        "as +NAME, with the same cell in a declared environment. Example: --mf-baseline release-1.2.",
        "REF",
        default="",
        default_text="none",
    ),
    Option(
        "save_baseline",
        "text",
        "Keep this run's record in the cache folder under a name that --mf-baseline takes. Example: "
        "--mf-save-baseline release-1.2.",
        "NAME",
        default="",
        default_text="none",
    ),
    Option(
        "fail_on",
        "margins",
        "What fails a run that is compared, each with the change beyond which it does: latency, throughput, load, "
        "first_inference, convert, size, memory, parity, flips, or none. Example: --mf-fail-on latency:5%,parity.",
        "METRIC[:PERCENT%],...",
        default_text="latency:5%,memory:10%,size:1%,parity",
    ),
    Option(
        "remeasure",
        "flag",
        "Measure also the cells of which nothing differs from the baseline's: artifact, runtime, options and tool.",
        default=False,
        default_text="off",
    ),
    Option(
        "config",
        "file",
        "The configuration file.",
        "FILE",
        default_text="modelformats.toml, or [tool.modelformats] of pyproject.toml, in pytest's rootdir",
        selects=True,
    ),
)
BY_KEY: dict[str, Option] = {option.key: option for option in OPTIONS}


def add_options(parser: pytest.Parser) -> None:
    """Give pytest the option group "modelformats".

    Values stay text and ``None`` where not given: ``configuration.load`` reads them, so that a
    wrong value gets the same message on the command line and in the file.
    """
    group = parser.getgroup("modelformats", "conformance and benchmarks of ML model formats")
    for option in OPTIONS:
        # argparse formats help texts with the % operator
        attributes: dict[str, Any] = {"dest": option.dest, "default": None, "help": option.full_help.replace("%", "%%")}
        if option.kind == "flag":
            attributes["action"] = "store_true"
        else:
            attributes["action"] = "append" if option.repeatable else "store"
            attributes["metavar"] = option.metavar or "|".join(option.choices)
        group.addoption(option.flag, **attributes)


def given(namespace: object) -> dict[str, Any]:
    """What the command line said, by key: the part of ``config.option`` that ``configuration.load`` takes."""
    values = {option.key: getattr(namespace, option.dest, None) for option in OPTIONS}
    return {key: value for key, value in values.items() if value is not None}


def validate_names(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Every one of ``names`` is a known ``kind`` ("format", "backend" ...).

    Raises: ConfigurationError, with the name that was probably meant.
    """
    from pytest_modelformats.schema.names import suggest

    known = tuple(known)
    for name in names:
        if name not in known:
            msg = f"'{name}' is not a known {kind}{suggest(name, known)}"
            raise ConfigurationError(msg)
