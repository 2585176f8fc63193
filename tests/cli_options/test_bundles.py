"""``--mf-bundles``: How many reproduction bundles a run may write."""

from __future__ import annotations

from inner_run import PARITY, two_layers

WRONG = "tiny~{}-onnx-fp32-onnxruntime@cpu"


def candidates(folder, *names):
    for name in names:
        two_layers(folder / f"{name}.onnx", change=1.0)
    return [argument for name in names for argument in ("--mf-candidate", f"{name}.onnx")]


def test_a_failing_cell_leaves_one_and_a_passing_one_none(run, tiny, pytester):
    ran = run("--mf-model", tiny, *candidates(pytester.path, "wrong"), *PARITY)
    line = ran.checks[WRONG.format("wrong"), "parity"]
    assert line["data"]["bundle"] == f"bundles/{WRONG.format('wrong')}-parity"
    (bundle,) = (path for path in (ran.folder / "bundles").iterdir() if path.is_dir())
    assert bundle.with_name(f"{bundle.name}.zip").is_file()
    assert "reproduce: python" in ran.text
    assert f"{bundle.name}/repro.py" in (ran.folder / "report.md").read_text()
    assert f"{bundle.name}/repro.py" in (ran.folder / "index.html").read_text()


def test_only_the_first_failing_check_of_a_cell_leaves_one(run, tiny, pytester):
    ran = run("--mf-model", tiny, *candidates(pytester.path, "wrong"), "--mf-suites", "parity,batch", *PARITY[2:])
    failed = {key: line for key, line in ran.checks.items() if line["outcome"] == "failed"}
    assert len(failed) == 2, ran.text
    assert [key[1] for key, line in failed.items() if "bundle" in line["data"]] == ["parity"]


def test_no_more_are_written_than_asked_for(run, tiny, pytester):
    wrong = candidates(pytester.path, "one", "two", "three")
    for number, kept in (("2", 2), ("0", 0)):
        ran = run("--mf-model", tiny, *wrong, "--mf-bundles", number, *PARITY)
        assert sum("bundle" in line["data"] for line in ran.of("check")) == kept
        assert sum(line["outcome"] == "failed" for line in ran.of("check")) == 3


def test_a_known_failure_leaves_none(run, tiny, pytester):
    (pytester.path / "known.txt").write_text("tiny~wrong-* parity # known (https://example.org/1)\n")
    wrong = candidates(pytester.path, "wrong")
    ran = run("--mf-model", tiny, *wrong, "--mf-expectations", "known.txt", *PARITY)
    assert ran.status == 0, ran.text
    assert not (ran.folder / "bundles").exists()


def test_a_negative_number_is_refused(refusal, tiny):
    assert "at least 0" in refusal("--mf-model", tiny, "--mf-bundles", "-1")
