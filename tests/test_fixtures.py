"""The recipes build what their docstrings say, the same at every call."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import ROOT

from pytest_modelformats.schema import TensorSpec

FIXTURES = ROOT / "fixtures"


def load(relative):
    path = FIXTURES / relative
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def feed(spec, batch):
    """Seeded values of a specification, with the symbolic dimensions at ``batch``."""
    parsed = TensorSpec.parse(spec)
    shape = [batch if isinstance(size, str) else size for size in parsed.shape]
    generator = torch.Generator().manual_seed(7)
    if parsed.is_float:
        return torch.randn(shape, generator=generator)
    return torch.randint(int(parsed.low), int(parsed.high) + 1, shape, generator=generator)


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def recipes():
    return {path.stem: load(path.relative_to(FIXTURES)) for path in sorted((FIXTURES / "models").glob("*.py"))}


@pytest.fixture(scope="module")
def networks():
    return load("random_networks.py")


@pytest.fixture(scope="module")
def resnet50(recipes, tmp_path_factory):
    """The file that the recipe saves, which takes seconds."""
    path = tmp_path_factory.mktemp("resnet50") / "resnet50.pth"
    recipes["resnet50"].save(path)
    return path


# --- models


@pytest.mark.parametrize("name", ["digits_cnn", "resnet50", "text_encoder", "random_networks"])
def test_importing_a_recipe_imports_nothing_heavy(name):
    """Specifications and factory attributes can be read in a process that has no torch."""
    folder = FIXTURES if name == "random_networks" else FIXTURES / "models"
    attribute = "gru_3.INPUTS" if name == "random_networks" else "INPUTS"
    code = f"import sys; sys.modules['torch'] = sys.modules['numpy'] = None; import {name}; print({name}.{attribute})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False)
    assert run.returncode == 0, run.stderr
    assert "[N" in run.stdout


@pytest.mark.parametrize("name", ["digits_cnn", "resnet50", "text_encoder"])
def test_specifications_fit_the_model(recipes, name):
    """A feed made from INPUTS runs at batch 1 and 3, and the outputs have that batch."""
    recipe = recipes[name]
    model = recipe.build().eval()
    for batch in (1, 3):
        with torch.inference_mode():
            outputs = model(*[feed(spec, batch) for spec in recipe.INPUTS])
        for output in outputs.values() if isinstance(outputs, dict) else [outputs]:
            assert output.shape[0] == batch
            assert torch.isfinite(output).all()


@pytest.mark.slow
def test_digits_cnn_is_trained_well_and_repeatably(recipes, tmp_path):
    """Training reaches 97 % on held-out images, and the same seed writes the same file."""
    recipe = recipes["digits_cnn"]
    state = torch.random.get_rng_state()
    paths = [tmp_path / folder / "digits.pth" for folder in ("first", "second", "other")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        path.parent.mkdir()
        assert recipe.train(path, seed=seed) >= 0.97
    assert sha256(paths[0]) == sha256(paths[1]) != sha256(paths[2])
    assert torch.equal(torch.random.get_rng_state(), state)
    model = recipe.build()
    model.load_state_dict(torch.load(paths[0], weights_only=True))
    assert recipe.accuracy(model) >= 0.97
    assert recipe.accuracy(recipe.build()) < 0.5


def test_digits_data_is_held_out(recipes):
    """No held-out image is among those that are trained on, and the specification fits."""
    recipe = recipes["digits_cnn"]
    data = getattr(recipe, recipe.DATA)()
    images, _ = recipe._digits()
    assert data["image"].shape == (recipe.HELD_OUT, 1, 8, 8)
    assert (str(data["image"].dtype), str(data["labels"].dtype)) == ("float32", "int64")
    assert 0.0 == data["image"].min() < data["image"].max() == 1.0
    assert len(set(data["labels"].tolist())) == 10
    held_out = {image.tobytes() for image in data["image"]}
    assert not held_out & {image.tobytes() for image in images[recipe.HELD_OUT :]}


def test_resnet50_has_torchvisions_names(recipes):
    """The state_dict has the names, shapes and number of parameters of torchvision's resnet50."""
    expected = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048), "fc.bias": (1000,)}
    norms = {"bn1": 64}
    inputs = 64
    for layer, (width, depth) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for index in range(depth):
            block = f"layer{layer}.{index}"
            expected[f"{block}.conv1.weight"] = (width, inputs, 1, 1)
            expected[f"{block}.conv2.weight"] = (width, width, 3, 3)
            expected[f"{block}.conv3.weight"] = (4 * width, width, 1, 1)
            norms |= {f"{block}.bn1": width, f"{block}.bn2": width, f"{block}.bn3": 4 * width}
            if index == 0:
                expected[f"{block}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                norms[f"{block}.downsample.1"] = 4 * width
            inputs = 4 * width
    for norm, width in norms.items():
        expected |= {f"{norm}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
        expected[f"{norm}.num_batches_tracked"] = ()
    model = recipes["resnet50"].build()
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected
    assert sum(p.numel() for p in model.parameters()) == 25_557_032  # as torchvision's documentation states


@pytest.mark.slow
def test_resnet50_keeps_the_scale_of_its_activations(recipes, resnet50):
    """With the saved weights logits are of order 1, whatever ordinary images come in."""
    recipe = recipes["resnet50"]
    model = recipe.build()
    model.load_state_dict(torch.load(resnet50, weights_only=True))
    model.eval()
    images = feed(recipe.INPUTS[0], 4)
    with torch.inference_mode():
        for kind in (images, 0.1 * images, images.sigmoid(), images.tanh()):
            logits = model(kind)
            assert 0.5 < logits.std() < 10
            assert logits.std(0).mean() > 0.05


@pytest.mark.parametrize("name", [pytest.param("resnet50", marks=pytest.mark.slow), "text_encoder"])
def test_saving_is_repeatable(recipes, name, tmp_path, request):
    """The same seed writes the same file, another seed another one, and torch's generator is left alone."""
    paths = [tmp_path / folder / f"{name}.pth" for folder in ("first", "second", "other")]
    if name == "resnet50":
        paths[0] = request.getfixturevalue("resnet50")
    state = torch.random.get_rng_state()
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        if not path.exists():
            path.parent.mkdir()
            recipes[name].save(path, seed=seed)
    assert sha256(paths[0]) == sha256(paths[1]) != sha256(paths[2])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_text_encoder_names_its_outputs(recipes):
    """Two outputs by name; every position matters, and so does every token."""
    recipe = recipes["text_encoder"]
    model = recipe.build().eval()
    ids = feed(recipe.INPUTS[0], 2)
    assert ids.min() >= 0
    with torch.inference_mode():
        outputs = model(ids)
        shuffled = model(ids.flip(1))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "last_hidden_state": (2, 32, 64),
        "pooled": (2, 64),
    }
    assert not torch.allclose(outputs["pooled"], shuffled["pooled"], atol=1e-2)


@pytest.mark.parametrize("name", ["digits_cnn", "resnet50", "text_encoder"])
def test_models_can_be_scripted(recipes, name):
    """TorchScript understands the code of every model, so the format's route by scripting can be shown on them."""
    recipe = recipes[name]
    model = recipe.build().eval()
    scripted = torch.jit.script(model)
    samples = feed(recipe.INPUTS[0], 1)
    with torch.inference_mode():
        expected, got = model(samples), scripted(samples)
    torch.testing.assert_close(got, expected)


def test_a_recipe_is_a_command(tmp_path):
    """``python fixtures/models/text_encoder.py OUT.pth`` writes the file."""
    command = [sys.executable, FIXTURES / "models/text_encoder.py", tmp_path / "out.pth"]
    subprocess.run(command, check=True)
    assert torch.load(tmp_path / "out.pth", weights_only=True)


# --- random networks

SEEDS = range(90)


def test_there_are_at_least_eight_families(networks):
    """Successive seeds take the families in turn."""
    kinds = {type(networks.network(seed)[0][0]).__name__ for seed in range(len(networks.FAMILIES))}
    assert len(networks.FAMILIES) >= 8
    assert len(kinds) >= 4


@pytest.mark.parametrize("seed", SEEDS)
def test_random_network_is_worth_comparing(networks, seed):
    """At least 64 output elements over 8 samples, of order 1, that depend on the input, at any batch size."""
    model, inputs = networks.network(seed)
    assert not model.training
    samples = feed(inputs[0], 8)
    with torch.inference_mode():
        outputs = model(samples)
        torch.testing.assert_close(model(samples[2:3]), outputs[2:3], atol=1e-4, rtol=1e-4)
    assert outputs.numel() >= 64
    assert torch.isfinite(outputs).all()
    if isinstance(model[-1], torch.nn.Softmax):
        torch.testing.assert_close(outputs.sum(1), torch.ones(8))
        assert outputs.std(0).mean() > 0.01
    else:
        assert 0.3 < outputs.std(0).mean() < 3
        assert outputs.abs().max() < 20


def test_random_networks_are_repeatable(networks):
    """A seed stands for one network, bit for bit, and two seeds of a family differ."""
    state = torch.random.get_rng_state()
    for seed in range(9):
        first, again, other = (networks.network(s)[0].state_dict() for s in (seed, seed, seed + 9))
        assert list(first) == list(again)
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert [tuple(v.shape) for v in first.values()] != [tuple(v.shape) for v in other.values()] or any(
            not torch.equal(a, b) for a, b in zip(first.values(), other.values(), strict=True)
        )
    assert torch.equal(torch.random.get_rng_state(), state)


def test_random_networks_have_factories_by_name(networks):
    """``random_networks:gru_17`` builds the network of that family and seed, and says what it takes."""
    factory = networks.gru_17
    model, inputs = networks.network(17)
    assert inputs == factory.INPUTS
    built = factory()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), built.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["gru", "gru_", "gru_x", "transformer_3", "_3"])
def test_an_unknown_network_is_named(networks, name):
    """A name that stands for no network says what would."""
    with pytest.raises(AttributeError, match=f"no network is called '{name}'; write <family>_<seed> with .* cnn,"):
        getattr(networks, name)
