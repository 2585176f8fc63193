"""The libraries that turn an fp32 ONNX model to fp16, each behind one function."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import onnx

# What fp16 holds, so that neither library changes more than has to be: the defaults of onnxconverter-common end at 1e4
# and 1e-7. Source: IEEE 754 binary16.
LARGEST = 65504.0
SMALLEST = 2.0**-24


@dataclass(frozen=True, slots=True)
class Producer:
    """A library that makes fp16 models; ``load`` gives its module, ``None`` where it is not installed."""

    exporter: str
    library: str
    load: Callable[[], ModuleType | None]

    def convert(self, module: Any, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model in fp16 with its inputs and outputs as they are; the model given is used up.

        Raises: whatever the library raises.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of every constant that is set to another: round_constants counts them
            half: onnx.ModelProto = module.convert_float_to_float16(
                model, min_positive_val=SMALLEST, max_finite_val=LARGEST, keep_io_types=True
            )
        return half

    def blocked(self, module: Any) -> frozenset[str]:
        """The operators that it leaves in fp32."""
        return frozenset(module.DEFAULT_OP_BLOCK_LIST)


def _converter_common() -> ModuleType:
    from onnxconverter_common import float16

    return float16  # type: ignore[no-any-return]


def _of_onnx_runtime() -> ModuleType | None:
    """The file alone: its package puts a folder of modules with common names on the path, and it needs only onnx."""
    found = importlib.util.find_spec("onnxruntime")
    places = [Path(place) for place in (found.submodule_search_locations or ())] if found else []
    file = next((f for place in places if (f := place / "transformers" / "float16.py").is_file()), None)
    name = "modelformats_onnxruntime_float16"
    if file is None or name in sys.modules:
        return sys.modules.get(name)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module


PRODUCERS = (
    Producer(
        "onnxconverter-common float16.convert_float_to_float16",
        "onnxconverter-common",
        _converter_common,
    ),
    Producer(
        "onnxruntime.transformers.float16.convert_float_to_float16",
        "ONNX Runtime's converter",
        _of_onnx_runtime,
    ),
)
