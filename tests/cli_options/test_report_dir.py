"""``--mf-report-dir``: Folder that the records and reports are written to."""

from __future__ import annotations

from inner_run import PARITY


def test_record_and_reports_go_there(run, tiny, pytester):
    ran = run("--mf-model", tiny, *PARITY, "--mf-report-dir", "out/of/sight")
    assert ran.status == 0, ran.text
    (folder,) = (f for f in (pytester.path / "out/of/sight").iterdir() if not f.is_symlink())
    assert sorted(f.name for f in folder.iterdir()) == ["index.html", "report.md", "results.jsonl"]
    assert not ran.reports.exists()
    assert str(folder / "index.html") in ran.text


def test_a_file_in_place_of_the_folder_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-report-dir", "tiny.onnx")
    assert "--mf-report-dir is 'tiny.onnx'; expected a folder, and this is a file" in sentence


def test_a_folder_that_cannot_be_made_is_refused(run, tiny):
    ran = run("--mf-model", tiny, *PARITY, "--mf-report-dir", "/proc/nowhere")
    assert ran.status == 4
    assert "the report folder /proc/nowhere cannot be written" in ran.text
    assert "--mf-report-dir" in ran.text
    assert "Traceback" not in ran.text
