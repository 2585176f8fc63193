"""Localisation's requests about sources of the PyTorch family, as a worker answers them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare.truths import (
    POINTS,
    OutOfTimeError,
    read,
    spread,
    spread_beside,
    timer,
)
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import PRECISIONS, Source, TensorSpec
from pytest_modelformats.systems.torch.localise import intermediates
from pytest_modelformats.systems.torch.reference.calling import TORCH_DTYPES, plain_kernels, to_numpy, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


class _Stop(Exception):
    """What was looked for is found."""


def torchscript(
    *,
    source: dict[str, Any],
    artifact: str,
    feed: dict[str, str],
    precision: str,
    folder: str,
    seconds: float,
    limit: float,
) -> dict[str, Any]:
    """The first submodule of a script that is wrong on the inputs that the source's own module gets.

    Modules are looked at when they return, so an inner one is named before the one around it.
    """
    from pytest_modelformats.systems.torch.loading.load import load_module
    from pytest_modelformats.systems.torch.loading.programs import load_scripted

    search = _ScriptSearch(
        load_module(Source.from_json(source)),
        load_scripted(Path(artifact), trust=True).eval(),
        precision,
        limit,
        Path(folder),
        timer(seconds),
    )
    try:
        intermediates.modules_of(search.module)
        if not search.scripts:
            return {"found": None, "reason": "the script has no submodules (frozen?)", "compared": 0}
        intermediates.run(search.module, read(feed), "fp32", search.look)
    except (OutOfTimeError, Unsupported) as error:
        return {"found": None, "reason": str(error), "compared": search.compared}
    except _Stop:
        return {"found": search.found, "reason": "", "compared": search.compared}
    named = f"{search.compared} submodules are right on the inputs that the source gives them"
    reason = named if search.compared else "no submodule of the script could be called as the source's is"
    return {"found": None, "reason": reason, "compared": search.compared}


class _ScriptSearch:
    """Compares the submodules of a script with the modules of the same path, each on good inputs."""

    def __init__(
        self,
        module: torch.nn.Module,
        script: Any,
        precision: str,
        limit: float,
        folder: Path,
        check: Callable[[int, int], None],
    ) -> None:
        self.module, self.precision, self.limit, self.folder, self.check = module, precision, limit, folder, check
        self.scripts = {unwrapped(path): inner for path, inner in script.named_modules() if unwrapped(path)}
        with intermediates.numerics(module, "float64") as (wide, _):
            self._wide = dict(wide.named_modules())
        with intermediates.numerics(module, precision) as (rounded, _):
            self._rounded = dict(rounded.named_modules())
        self.compared = 0
        self.before: list[str] = []
        self.found: dict[str, Any] | None = None

    def look(self, path: str, own: Any, given: tuple[Any, ...], output: Any) -> None:
        """Run the script's submodule on what the source's module was given; stop at the first that is wrong."""
        import torch

        self.check(self.compared, len(self.scripts))
        tensors = [leaf for leaf in given if isinstance(leaf, torch.Tensor)]
        if path not in self.scripts or len(tensors) != len(given) or intermediates.first_tensor(output) is None:
            return
        truth, rounded = self._truths(path, tensors)
        try:
            with plain_kernels():
                got = intermediates.first_tensor(self.scripts[path](*self._narrow(path, tensors)))
        except (RuntimeError, TypeError, IndexError, NotImplementedError):
            return  # tracing may have given it other arguments
        if got is None or got.shape != truth.shape:
            return
        self.compared += 1
        ratio, noise = _ratio(to_numpy(truth), to_numpy(rounded), to_numpy(got.float()), self.precision)
        if ratio <= self.limit:
            self.before.append(path)
            return
        self.found = {
            "operator": type(own).__name__,
            "node": path,
            "module": path,
            "output": path,
            "input_error": 0.0,
            "output_error": ratio if math.isfinite(ratio) else None,
            "how": self._weights(path, own),
            "missing": [],
            "before": self.before[-6:],
        } | self._part(path, tensors, truth, noise)
        raise _Stop

    def _truths(self, path: str, tensors: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The module's result on these inputs in float64, and at the precision."""
        import torch

        results = []
        for modules, precision in ((self._wide, "float64"), (self._rounded, self.precision)):
            wide = precision == "float64"
            cast = [t.double() if wide and t.is_floating_point() else t for t in tensors]
            with intermediates.mode(precision):
                result = intermediates.first_tensor(modules[path](*cast))
            assert isinstance(result, torch.Tensor)  # noqa: S101 - it returned one a moment ago
            results.append(result)
        return results[0], results[1]

    def _narrow(self, path: str, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """The inputs as the script computes: fp16 and bf16 artifacts take their own floats."""
        import torch

        dtype = next((p.dtype for p in self.scripts[path].parameters()), None)
        dtype = dtype or getattr(torch, TORCH_DTYPES.get(self.precision, "float32"))
        return [t.to(dtype) if t.is_floating_point() else t for t in tensors]

    def _weights(self, path: str, own: Any) -> str:
        """Which weight is not the source's, in words."""
        import torch

        mine, theirs = dict(self.scripts[path].state_dict()), own.state_dict()
        for name, value in theirs.items():
            other = mine.get(name)
            if other is not None and other.shape == value.shape and not torch.equal(other, value.to(other.dtype)):
                count = int((other != value.to(other.dtype)).sum())
                return f"'{path}.{name}' differs from the source's in {count} of {value.numel()} elements"
        return ""

    def _part(
        self, path: str, tensors: list[torch.Tensor], truth: torch.Tensor, noise: tuple[float, float]
    ) -> dict[str, Any]:
        """The submodule as a script of its own, its inputs and what should come out."""
        import numpy as np
        import torch

        self.folder.mkdir(parents=True, exist_ok=True)
        narrow = self._narrow(path, tensors)
        if any(t.dtype is torch.bfloat16 for t in narrow):
            return {"submodel": None}  # numpy has no such type to carry the inputs in
        try:
            with plain_kernels():
                torch.jit.save(self.scripts[path], self.folder / "model.ts.pt")
        except RuntimeError:
            return {"submodel": None}
        inputs = {}
        for index, tensor in enumerate(narrow):
            inputs[f"input_{index}"] = str(self.folder / f"in_{index}.npy")
            np.save(self.folder / f"in_{index}.npy", to_numpy(tensor), allow_pickle=False)
        np.save(self.folder / "expected_0.npy", to_numpy(truth), allow_pickle=False)
        shapes = [(str(to_numpy(t).dtype), tuple(t.shape)) for t in narrow]
        return {
            "submodel": str(self.folder / "model.ts.pt"),
            "inputs": inputs,
            "specs": [TensorSpec(n, *s).to_json() for n, s in zip(inputs, shapes, strict=True)],
            "outputs": ["output"],
            "expected": [str(self.folder / "expected_0.npy")],
            "noise": [list(noise)],
        }


def _ratio(truth: Any, rounded: Any, got: Any, precision: str) -> tuple[float, tuple[float, float]]:
    """The error of a result over the noise of the true one, and that noise: rms and maximum."""
    from pytest_modelformats.compare.noise import measure_noise

    noise = measure_noise([truth], [rounded], PRECISIONS[precision].mantissa_bits)
    rms, largest, comparable = spread(truth, got)
    if not comparable:  # what is not finite at the precision itself is no error
        rms, largest, comparable = spread_beside(truth, rounded, got)
    if not comparable or not noise.rms:
        return (0.0 if rms == 0 else math.inf), (noise.rms, noise.max)
    return max(rms / noise.rms, largest / noise.max / POINTS), (noise.rms, noise.max)
