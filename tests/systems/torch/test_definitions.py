"""What other runtimes compute by another formula of the same value is part of the noise of a torch source."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from pytest_modelformats.systems.torch.reference import modes, numerics

RNG = np.random.default_rng(0)


class Of(torch.nn.Module):
    """A function of the input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def evaluated(function, x, precision="fp32"):
    with torch.no_grad():
        outputs, method = numerics.evaluate(Of(function), [{"x": x}], precision)
    return outputs[0][0], method


def noise(function, x, precision="fp32"):
    rounded, method = evaluated(function, x, precision)
    return float(np.sqrt(np.mean((rounded - evaluated(function, x, "float64")[0]) ** 2))), method


def rows(low):
    return (low + RNG.random((64, 16))).astype(np.float32)


# The rms errors of ONNX Runtime's Sigmoid and OpenVINO's SoftPlus, as measured (torch_modes.by_definition).
@pytest.mark.parametrize(
    ("function", "low", "others", "said"),
    [
        (torch.sigmoid, -6, 2.7e-8, "low sigmoids as 1 - 1 / (1 + exp(x))"),
        (torch.sigmoid, -10, 3.0e-8, "low sigmoids as 1 - 1 / (1 + exp(x))"),
        (functional.silu, -6, 1.5e-7, "SiLU with low sigmoids"),
        (lambda x: functional.glu(torch.cat([x * 0 - 6, x], 1), 1), -6, 1.6e-7, "GLU with low sigmoids"),
        (functional.softplus, -4, 1.0e-7, "softplus as log(1 + exp(x))"),
        (functional.elu, -0.5, 3.0e-8, "ELU by its definition"),
    ],
)
def test_the_noise_explains_what_other_formulas_cost(function, low, others, said):
    """At most 4 times the noise, k at fp32, and not less than a tenth: it is no licence either."""
    own, method = noise(function, rows(low))
    assert 0.1 < others / own < 4
    assert said in method


def test_sigmoids_of_usual_size_keep_their_noise():
    """Above -2 torch's own is as good as another one."""
    x = rows(-1)
    assert np.array_equal(evaluated(torch.sigmoid, x)[0], torch.sigmoid(torch.from_numpy(x)).numpy())


def test_rounded_weights_are_computed_with_as_in_fp32():
    assert noise(torch.sigmoid, rows(-10), "fp16-weights")[0] > 1e-8


def test_a_model_without_them_is_native_alone():
    assert evaluated(torch.tanh, rows(0))[1] == "fp32: native"


@pytest.mark.parametrize("function", [torch.sigmoid, functional.silu, functional.softplus, functional.elu])
def test_a_definition_is_the_same_function(function):
    """Over all that fp32 holds, in place too."""
    x = torch.tensor([-1e30, -200, -90, -50, -20, -3, -1, 0, 1, 3, 20, 50, 90, 200, 1e30])
    with torch.no_grad(), modes.by_definition():
        found = function(x)
    assert torch.allclose(found, function(x), atol=1e-5, rtol=1e-6)
    with torch.no_grad(), modes.by_definition():
        again = x.clone().sigmoid_()
    assert torch.allclose(again, torch.sigmoid(x), atol=1e-6)


def test_where_rounding_decides_between_a_number_and_nan_there_is_no_number():
    """A variance of nearly equal values: each run has NaN in other places, so all of these are lost."""

    def deviation(x):
        h = x + 1000
        return torch.sqrt((h * h).mean(1, keepdim=True) - h.mean(1, keepdim=True) ** 2)

    x = (0.1 * RNG.standard_normal((64, 6))).astype(np.float32)
    alone = np.isnan(deviation(torch.from_numpy(x)).numpy())
    moved = np.isnan(deviation(torch.from_numpy(x * np.float32(1 + 2**-11))).numpy())
    lost = np.isnan(evaluated(deviation, x)[0])
    assert alone.any()
    assert (moved & ~alone).any()
    assert lost[alone].all()
    assert np.mean(lost[moved]) > 0.8


def test_what_is_lost_where_denormals_are_flushed_is_lost():
    """The logarithm of a denormal: -Inf where a runtime flushes it."""
    x = np.array([[1.0, 1e10, 1e-10]], np.float32)
    assert np.isfinite(evaluated(lambda x: torch.log(x * 1e-20 * 1e-20), x)[0]).tolist() == [[False, True, False]]
