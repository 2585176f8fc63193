"""The architectures that faults are put into: what the random networks of ``fixtures`` leave out, and a table of all.

``networks.py:text`` is a factory with its ``INPUTS``, as the product takes it. Weights are seeded.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

HERE = Path(__file__).resolve()
FIXTURES = HERE.parents[2] / "fixtures"
RANDOM = FIXTURES / "random_networks.py"
DIGITS = FIXTURES / "models" / "digits_cnn.py"
VOCABULARY, LENGTH = 200, 12
# A grid that int8 holds; what DequantizeLinear makes of the integers is bit for bit the weight.
STEP = 0.0123


class Architecture(NamedTuple):
    """One model of the benchmark: what kind of network, and what the product is given."""

    kind: str
    reference: str


ARCHITECTURES = {
    "cnn_2": Architecture("CNN", f"{RANDOM}:cnn_2"),
    "depthwise_1": Architecture("depthwise CNN", f"{RANDOM}:depthwise_1"),
    "residual_1": Architecture("residual CNN", f"{RANDOM}:residual_1"),
    "groupnorm_1": Architecture("CNN with group norm", f"{RANDOM}:groupnorm_1"),
    "mlp_1": Architecture("MLP with softmax", f"{RANDOM}:mlp_1"),
    "mlpnorm_1": Architecture("MLP with layer norm", f"{RANDOM}:mlpnorm_1"),
    "attention_1": Architecture("self-attention encoder", f"{RANDOM}:attention_1"),
    "lstm_1": Architecture("LSTM", f"{RANDOM}:lstm_1"),
    "gru_1": Architecture("GRU", f"{RANDOM}:gru_1"),
    "pooled": Architecture("CNN with poolings, padding modes and dilation", f"{HERE}:pooled"),
    "preact": Architecture("pre-activation residual CNN", f"{HERE}:preact"),
    "text": Architecture("embedding and masked attention, two outputs", f"{HERE}:text"),
    "detector": Architecture("detection-like, three outputs", f"{HERE}:detector"),
    "quantised": Architecture("CNN with int8 weights", f"{HERE}:quantised"),
    "digits_cnn": Architecture("CNN trained on real digits", str(DIGITS)),
}


def build(name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """A fresh module of an architecture in eval mode, and the specifications of its inputs."""
    path, _, member = ARCHITECTURES[name].reference.rpartition(":")
    if not path:
        return trained()[0], trained()[1]
    factory = getattr(module_of(Path(path)), member)
    return factory().eval(), tuple(factory.INPUTS)


def trained() -> tuple[nn.Module, tuple[str, ...]]:
    """The CNN trained on the digits, and the specification of its input."""
    import torch

    recipe = module_of(DIGITS)
    module = recipe.build()
    module.load_state_dict(torch.load(_trained_file(), weights_only=True))
    return module.eval(), tuple(recipe.INPUTS)


@cache
def _trained_file() -> Path:
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="bench-verdict-digits-")) / "digits_cnn.pth"
    module_of(DIGITS).train(str(path))
    return path


def given(name: str) -> str:
    """What ``--mf-model`` is given for an architecture: a factory, or the trained weights."""
    reference = ARCHITECTURES[name].reference
    return reference if ":" in reference else str(_trained_file())


@cache
def module_of(path: Path) -> Any:
    """The Python file as a module."""
    name = f"bench_verdict_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        msg = f"{path} is no Python file"
        raise ImportError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def seeded(seed: int, *inputs: str) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """The factory with its ``INPUTS``, its weights drawn from a seed; torch's generators are left as they were."""

    def decorate(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        def factory() -> nn.Module:
            import torch

            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(seed)
                return make().eval()

        factory.__name__ = factory.__qualname__ = make.__name__
        factory.__doc__ = make.__doc__
        vars(factory)["INPUTS"] = inputs
        return factory

    return decorate


@seeded(1, "input:float32[N,3,17,17]")
def pooled() -> nn.Module:
    """Both poolings, a reflected border, a dilated and a strided convolution."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, padding_mode="reflect"),
        nn.PReLU(16, 0.1),
        nn.AvgPool2d(3, 2, 1),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.GELU(),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.Conv2d(16, 24, 3, padding=2, dilation=2),
        nn.Hardswish(),
        nn.Conv2d(24, 24, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.AvgPool2d(2, 2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


@seeded(2, "input:float32[N,3,12,12]")
def preact() -> nn.Module:
    """Batch norm before every convolution, where no exporter folds it away, with statistics of its own."""
    import torch
    from torch import nn

    own = _modules()
    blocks = [own.Residual(_preact_block(16)) for _ in range(3)]
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), *blocks, nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 144, 8)
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
    network.train()(torch.randn(64, 3, 12, 12))
    return network


def _preact_block(width: int) -> nn.Module:
    from torch import nn

    first = [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False)]
    return nn.Sequential(*first, nn.BatchNorm2d(width), nn.LeakyReLU(0.1), nn.Conv2d(width, width, 3, padding=1))


@seeded(3, f"ids:int64[N,{LENGTH}]{{0..{VOCABULARY - 1}}}")
def text() -> nn.Module:
    """Token ids, masked self-attention, and two outputs of one shape."""
    return _modules().Text(24, 4)


@seeded(4, "image:float32[N,3,16,16]")
def detector() -> nn.Module:
    """A backbone of two scales, joined after a resize: boxes, scores of one shape, and labels."""
    return _modules().Detector(12)


@seeded(5, "input:float32[N,3,8,8]")
def quantised() -> nn.Module:
    """A small CNN whose weights lie on a grid that int8 holds."""
    import torch
    from torch import nn

    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(256, 32),
        nn.Tanh(),
        nn.Linear(32, 10),
    )
    step = torch.tensor(STEP)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.weight.copy_((module.weight / step).round().clamp(-127, 127) * step)
    return network


@cache
def _modules() -> Any:
    """The modules that torch has no ready one for; made once, because they need torch."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Residual(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.inner(x)

    class MaskedAttention(nn.Module):
        """No token sees a later one."""

        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.project = nn.Linear(width, 3 * width)
            self.out = nn.Linear(width, width)
            self.register_buffer("later", torch.triu(torch.ones(LENGTH, LENGTH, dtype=torch.bool), 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            query, key, value = parts[0], parts[1], parts[2]
            scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            weights = scores.masked_fill(self.later, -1e9).softmax(-1)
            return self.out((weights @ value).transpose(1, 2).flatten(2))

    class Text(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, width)
            self.positions = nn.Parameter(torch.randn(LENGTH, width) / 2)
            self.layers = nn.Sequential(*[self.layer(width, heads) for _ in range(2)])
            self.norm = nn.LayerNorm(width)
            self.pooler = nn.Linear(width, 16)
            self.head = nn.Linear(width, 16)

        @staticmethod
        def layer(width: int, heads: int) -> nn.Module:
            attention = nn.Sequential(nn.LayerNorm(width), MaskedAttention(width, heads))
            inner = [nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)]
            return nn.Sequential(Residual(attention), Residual(nn.Sequential(*inner)))

        def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            hidden = self.norm(self.layers(self.tokens(ids) + self.positions))
            return torch.tanh(self.pooler(hidden[:, -1])), self.head(hidden[:, 1:-1].mean(1))

    class Detector(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.near = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.SiLU())
            self.far = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.SiLU())
            self.joined = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU6())
            self.boxes = nn.Conv2d(2 * width, 4, 1)
            self.scores = nn.Conv2d(2 * width, 4, 1)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            near = self.near(image)
            far = functional.interpolate(self.far(near), scale_factor=2.0, mode="bilinear", align_corners=False)
            features = self.joined(torch.cat((near, far), 1))
            raw = self.boxes(features).flatten(2).transpose(1, 2)
            scores = self.scores(features).flatten(2).transpose(1, 2)
            centre, size = raw[..., :2].sigmoid(), raw[..., 2:].clamp(-4.0, 4.0).exp()
            boxes = torch.cat((centre - size / 2, centre + size / 2), -1)
            return boxes, scores.softmax(-1), scores.argmax(-1)

    return SimpleNamespace(Residual=Residual, Text=Text, Detector=Detector)
