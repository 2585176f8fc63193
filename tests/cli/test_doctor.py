"""What the machine is found to be, and the ``modelformats`` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from free_sizes import pooled
from places import ROOT

from pytest_modelformats.cli import doctor
from pytest_modelformats.cli import main as cli
from pytest_modelformats.schema import registry
from pytest_modelformats.settings import machine

# --- machine -------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    """A machine's root folder: write the kernel's files into it by their path."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def nvidia(tmp_path, nodes, models):
    driver = tmp_path / "proc/driver/nvidia"
    (tmp_path / "dev").mkdir()
    for index, model in enumerate(models):
        (driver / f"gpus/0000:0{index}:00.0").mkdir(parents=True)
        (driver / f"gpus/0000:0{index}:00.0/information").write_text(f"Model: \t\t {model}\nIRQ: 1\n")
    driver.mkdir(parents=True, exist_ok=True)
    (driver / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23\nGCC: 12\n")
    for name in (*(f"nvidia{n}" for n in nodes), "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).write_text("")
    return tmp_path


def test_a_machine_without_a_driver_has_no_gpu(tmp_path):
    assert machine.gpus(tmp_path) == ()
    assert machine.gpu_driver(tmp_path) == ""


def test_gpus_have_their_names_and_their_driver_its_version(tmp_path):
    found = nvidia(tmp_path, [0, 1], ["NVIDIA A", "NVIDIA B"])
    assert machine.gpus(found) == ("NVIDIA A", "NVIDIA B")
    assert machine.gpu_driver(found) == "580.95.05"


def test_a_container_has_only_the_gpus_it_was_given(tmp_path):
    assert machine.gpus(nvidia(tmp_path, [1], ["NVIDIA A", "NVIDIA B"])) == ("NVIDIA GPU 1",)


def test_a_driver_without_a_device_is_no_gpu(tmp_path):
    assert machine.gpus(nvidia(tmp_path, [], ["NVIDIA A"])) == ()


@pytest.mark.parametrize("key", ["flags", "Features"])
def test_instruction_sets_come_from_the_kernel(root, key):
    text = f"processor\t: 0\n{key}\t\t: sse avx2\n\nprocessor\t: 1\n{key}\t\t: other\n"
    assert machine.cpu_flags(root(proc__cpuinfo=text)) == ("avx2", "sse")


def test_the_memory_of_a_container_is_its_limit(root):
    assert machine.memory_bytes(root(**{"sys__fs__cgroup__memory.max": "123456\n"})) == 123456


def test_a_container_without_a_limit_has_the_memory_of_the_machine(root):
    import psutil

    assert machine.memory_bytes(root(**{"sys__fs__cgroup__memory.max": "max\n"})) == psutil.virtual_memory().total


def test_the_machine_is_described_in_plain_values():
    facts = machine.machine()
    assert json.loads(json.dumps(facts))["cores"] == len(os.sched_getaffinity(0))
    assert {"cpu", "cpu_flags", "cores", "memory_bytes", "os", "gpu", "python"} <= facts.keys()


def test_installed_does_not_import():
    code = (
        "from pytest_modelformats.settings import machine; import sys; "
        "print(machine.installed('numpy'), 'numpy' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert printed == ["True", "False"]


def test_a_module_that_is_not_there_is_not_installed():
    assert machine.installed("json.decoder")
    assert not machine.installed("none_such_module.part")


def test_a_distribution_that_is_not_there_has_no_version():
    assert machine.versions(["pytest", "none-such-distribution"]) == {"pytest": pytest.__version__}


# --- doctor --------------------------------------------------------------------------------


def test_a_missing_module_comes_with_its_install_line(tmp_path):
    found = doctor.diagnose(tmp_path, lambda module: module != "openvino")
    (part,) = (part for part in found.parts if (part.kind, part.name) == ("backend", "openvino"))
    assert part.missing == ("openvino",)
    assert part.install == registry.backends()["openvino"].install
    (other,) = (part for part in found.parts if (part.kind, part.name) == ("backend", "onnxruntime"))
    assert (other.missing, other.install) == ((), "")


def test_every_registered_system_is_looked_at(tmp_path):
    found = {(part.kind, part.name) for part in doctor.diagnose(tmp_path).parts}
    assert found == {
        *(("format", name) for name in registry.formats()),
        *(("converter", name) for name in registry.converters()),
        *(("backend", name) for name in registry.backends()),
    }


def test_an_emulated_precision_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "machine", lambda: {"cpu_flags": ("avx2",), "architecture": "x86_64"})
    found = doctor.diagnose(tmp_path)
    assert found.instruction_sets["avx2"]
    assert not found.instruction_sets["avx512f"]
    assert ("torch", "fp16") in {(e.backend, e.precision) for e in found.emulations}


def test_a_native_precision_is_not_called_emulated(tmp_path, monkeypatch):
    flags = tuple(f for b in registry.backends().values() for needs in b.needs_cpu_flags.values() for f in needs)
    monkeypatch.setattr(machine, "machine", lambda: {"cpu_flags": flags, "architecture": "x86_64"})
    assert doctor.diagnose(tmp_path).emulations == ()


def test_a_cache_folder_that_is_not_there_yet_is_judged_by_its_parent(tmp_path):
    folder = doctor.diagnose(tmp_path / "a" / "b").cache
    assert not folder.exists
    assert folder.writable
    assert folder.free_bytes > 0


def test_the_support_table_has_a_line_for_every_format_and_backend():
    lines = doctor.support_table().splitlines()
    pairs = {(form, backend.name) for backend in registry.backends().values() for form, _ in backend.precisions}
    assert len(lines) == 2 + len(pairs)
    assert len({line.count("|") for line in lines}) == 1


def test_hardware_that_nobody_saw_is_not_called_verified(monkeypatch):
    torch = replace(registry.backends()["torch"], verified={"cpu": "x86-64"})
    monkeypatch.setattr(registry, "backends", lambda: {"torch": torch})
    (line,) = (line for line in doctor.support_table().splitlines() if "PyTorch eager" in line)
    assert "verified (x86-64) | not verified on hardware" in line


def test_a_gpu_lane_is_called_verified_only_where_a_record_shows_every_precision_of_it_passed():
    passed = set()
    for path in sorted((ROOT / "reports" / "verified").glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert lines[-1]["kind"] == "footer"
        assert lines[-1]["complete"]
        (gpu,) = lines[0]["machine"]["gpu"]
        cells = {line["cell"]: line for line in lines if line["kind"] == "cell" and line["device"] == "cuda"}
        passed |= {
            (cells[name]["backend"], cells[name]["precision"], " ".join(gpu.split()[:2]))
            for name, outcome in lines[-1]["cells"].items()
            if outcome == "passed" and name in cells
        }
    declared = {
        (backend.name, precision, backend.verified["cuda"].partition(",")[0])
        for backend in registry.backends().values()
        for precisions in backend.precisions.values()
        for precision in precisions
        if "cuda" in backend.verified
    }
    assert declared
    assert declared <= passed


# --- the command ---------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run ``modelformats`` in an empty project; returns the exit code, stdout and stderr."""
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_doctor_shows_machine_libraries_and_systems(command):
    code, out, _ = command("doctor")
    assert code == 0
    for word in ("instruction sets", "memory", "onnxruntime", "backend torch-compile", "converter onnx_from_pytorch"):
        assert word in out


def test_doctor_looks_at_the_cache_it_is_told(command, tmp_path):
    assert str(tmp_path / "c") in command("doctor", "--mf-cache", "c")[1]


def test_support_prints_the_table(command):
    assert command("support")[1] == doctor.support_table()


def test_plan_shows_the_graph_and_every_cell_sorted_and_runs_nothing(command):
    code, out, _ = command("plan", "nets:net")
    assert code == 0
    assert "pytorch fp32 → onnx fp32: legacy (onnx_from_pytorch_legacy, only by --mf-formats onnx.legacy)" in out
    cells = [word for line in out.splitlines() for word in line.split() if word.startswith("net-")]
    assert cells == sorted(cells)
    assert "net-onnx-fp32-onnxruntime@cpu" in cells


def test_plan_shows_the_chain_of_a_cell(command):
    out = command("plan", "nets:net", "--mf-formats", "onnx", "--mf-precisions", "fp16", "--mf-devices", "cpu")[1]
    (line,) = (line for line in out.splitlines() if "net-onnx-fp16" in line)
    assert line.endswith("pytorch → onnx_from_pytorch (fp32) → onnx_fp16_from_onnx (fp16)")


def test_plan_says_the_sizes_of_free_dimensions_and_who_states_them(command, tmp_path):
    pooled(tmp_path / "stated.onnx", metadata={"imgsz": "[320, 320]"})
    pooled(tmp_path / "free.onnx")
    pooled(tmp_path / "fixed.onnx", dims=("N", 1, 8, 8))
    sizes = {name: said for name in ("stated", "free", "fixed") for said in [planned_sizes(command, f"{name}.onnx")]}
    assert sizes["stated"] == "height 320, width 320 (by the file's metadata: imgsz [320, 320])"
    assert "nothing states the size of 'height' and 'width': a run tries height 64, width 64;" in sizes["free"]
    assert "--mf-input 'x:float32[N,1,64,64]'" in sizes["free"]
    assert sizes["fixed"] == ""
    pinned = planned_sizes(command, "stated.onnx", "--mf-input", "x:float32[N,1,24,40]")
    assert pinned == "height 24, width 40 (by --mf-input)"
    assert "'S': a run tries S 16" in planned_sizes(command, "nets:net", "--mf-input", "x:float32[N,S]")
    (tmp_path / "modelformats.toml").write_text("[models.free]\npath = 'free.onnx'\ndata = 'own.npz'\n")
    assert planned_sizes(command) == "'height' and 'width': those of the samples"


def planned_sizes(command, *arguments):
    """What the plan says of the sizes, "" where it says nothing."""
    code, out, _ = command("plan", *arguments)
    assert code == 0
    return next((line.split("sizes: ")[1] for line in out.splitlines() if "sizes: " in line), "")


def test_plan_takes_the_models_of_the_configuration(command, tmp_path):
    (tmp_path / "modelformats.toml").write_text("[models.small]\npath = 'nets:net'\n")
    assert "small-onnx-fp32-onnxruntime@cpu" in command("plan")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan"], ("there is no model to plan for",)),
        (["plan", "none.onnx"], ("there is no file", "none.onnx")),
        (["plan", "nets:net", "--mf-formats", "onxx"], ("'onxx'", "did you mean 'onnx'?")),
        (["plan", "nets:net", "--mf-input", "x"], ("--mf-input", "name:dtype[dims]")),
        (["plan", "nets:net", "--mf-formats", "onnx", "--mf-backends", "torch"], ("no cell is left",)),
        (["report", "none.jsonl"], ("none.jsonl", "cannot be read")),
        (["report", "."], ("holds no results.jsonl",)),
    ],
)
def test_an_error_is_one_sentence_and_exit_code_2(command, arguments, words):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.fixture
def runs(tmp_path):
    """A report folder with an older and a newer run."""
    for age, name in ((60, "old"), (0, "new")):
        record = tmp_path / "reports" / name / "results.jsonl"
        record.parent.mkdir(parents=True)
        header = {
            "kind": "header",
            "schema": 1,
            "run": name,
            "started": "2026-11-23T10:00:00+00:00",
            "tool": "0",
            "machine": {"cpu": "a processor"},
        }
        record.write_text(json.dumps(header) + "\n")
        os.utime(record, (1_700_000_000 - age,) * 2)
    return tmp_path / "reports"


def test_report_shows_the_newest_run_of_a_folder(command, runs):
    code, out, _ = command("report", str(runs), "--format", "html")
    assert code == 0
    assert "Run new," in out


def test_report_writes_the_form_that_the_file_name_asks_for(command, runs, tmp_path):
    code, out, _ = command("report", str(runs), "-o", str(tmp_path / "r.html"))
    assert (code, out) == (0, "")
    assert (tmp_path / "r.html").read_text("utf-8").lstrip().lower().startswith("<!doctype html")


@pytest.mark.parametrize("form", ["md", "terminal"])
def test_report_has_other_forms(command, runs, form):
    code, out, _ = command("report", str(runs / "old" / "results.jsonl"), "--format", form)
    assert code == 0
    assert "incomplete" in out or "interrupted" in out


def test_report_says_when_the_file_cannot_be_written(command, runs):
    code, _, err = command("report", str(runs), "-o", "none/r.html")
    assert code == 2
    assert "none/r.html cannot be written" in err


def test_the_command_imports_no_runtime():
    code = (
        "import sys; from pytest_modelformats.cli import main\n"
        "try: main.main(['doctor'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'openvino', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
