"""Which module an IR is blamed for: a tensor is compared with a module's result where it can be that result."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_modelformats.compare.truths import Writer
from pytest_modelformats.schema import PRECISIONS
from pytest_modelformats.systems.openvino.localise import blame_openvino, expose_openvino, plan_openvino
from pytest_modelformats.systems.torch.localise import exported

pytestmark = pytest.mark.slow

ATTENTION = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(60)
        self.q, self.k, self.v, self.o = (torch.nn.Linear(8, size) for size in (8, 8, 8, 4))

    def forward(self, x):
        q = self.q(x) * 8**-0.5
        return self.o(torch.softmax(q @ self.k(x).transpose(1, 2), -1) @ self.v(x))


def build():
    return Net().eval()
"""


@pytest.fixture
def blamed(tmp_path, monkeypatch):
    """Convert the network, changed; returns what is named in the IR, run by OpenVINO."""
    import openvino
    import torch

    (tmp_path / "attention_net.py").write_text(ATTENTION)
    monkeypatch.syspath_prepend(str(tmp_path))
    from attention_net import build

    def load(_):
        return build()

    monkeypatch.setattr("pytest_modelformats.systems.torch.loading.load.load_module", load)
    source = {"location": "", "format": "pytorch", "reference": "", "size_bytes": 0, "digest": ""}
    monkeypatch.setattr(exported.Source, "from_json", lambda data: data)
    rows = np.random.default_rng(0).standard_normal((6, 5, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    limit, truths, path = PRECISIONS["fp32"].limit, str(tmp_path / "truths"), str(tmp_path / "model.xml")

    def search(change):
        net = build()
        with torch.no_grad():
            change(net)
        model = openvino.convert_model(net, example_input=torch.from_numpy(rows), input=[("x", [-1, 5, 8])])
        openvino.save_model(model, path, compress_to_fp16=False)
        feed = {"x": str(tmp_path / "x.npy")}
        told = exported.record(source=source, feed=feed, precision="fp32", truths=truths, seconds=60)
        assert not told["reason"]
        operators = plan_openvino(artifact=path, truths=truths)["operators"]
        exposed = str(tmp_path / "exposed.xml")
        expose_openvino(artifact=path, names=[op[0] for op in operators], path=exposed)
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        results = openvino.Core().compile_model(exposed, "CPU", settings)([rows])
        files = []
        for index in range(len(operators)):
            files.append(str(tmp_path / f"{index}.npy"))
            np.save(files[-1], results[index])
        answer = blame_openvino(
            artifact=path, source=source, truths=truths, operators=operators, files=files, limit=limit
        )
        return answer, operators

    return search


def weight_scaled(name):
    def change(net):
        getattr(net, name).weight[0, 0] *= 1.01

    return change


def test_a_product_whose_bias_stands_behind_the_next_scale_is_no_result_of_its_module(blamed):
    answer, operators = blamed(lambda _: None)
    assert any(op[0].startswith("__module.q/") and op[3] == "loose" for op in operators), operators
    assert answer["found"] is None
    assert answer["apart"] == 1


@pytest.mark.parametrize("name", ["o", "k", "v", "q"])
def test_the_module_with_the_fault_is_named(blamed, name):
    found = blamed(weight_scaled(name))[0]["found"]
    assert found["module"] == name, found
    assert found["how"] == f"'{name}.weight' differs from the source's in 1 of {32 if name == 'o' else 64} elements"


def test_where_the_ir_does_not_hold_a_result_the_sentence_says_so(blamed):
    """The scale of q is wrong, which no weight tells, and no tensor of the IR is the result of q."""

    def change(net):
        net.q.weight *= 1.5
        net.q.bias *= 1.5

    found = blamed(change)[0]["found"]
    assert "does not hold the result of 'q' as such, so the fault may lie there too" in found["how"], found


def test_another_layout_is_not_compared(tmp_path):
    """Of a module's results the last may be another one than the first, which is what is known."""
    writer = Writer(tmp_path, "fp32")
    truth = np.random.default_rng(1).standard_normal((3, 4))
    writer.add("rnn", "LSTM", truth, truth.astype(np.float32))
    writer.close()
    np.save(tmp_path / "other.npy", truth.T.astype(np.float32))
    np.save(tmp_path / "wrong.npy", (truth * 1.01).astype(np.float32))

    def blame(file):
        operators = [["__module.rnn/aten::lstm/Transpose", "rnn", "Transpose", ""]]
        return blame_openvino(
            artifact="", source={"format": "onnx"}, truths=str(tmp_path), operators=operators,
            files=[str(tmp_path / file)], limit=4,
        )  # fmt: skip

    assert blame("other.npy") == {"found": None, "apart": 1}
    assert blame("wrong.npy")["found"]["module"] == "rnn"
