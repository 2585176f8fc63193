"""From "mini" to "minicopy": faithfully by ``copies``, wrongly by all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miniatures import hazards, network
from pytest_modelformats.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from pytest_modelformats.schema.contract import ConversionJob


def _write(job: ConversionJob, change: Callable[[dict[str, np.ndarray]], None]) -> dict[str, Any]:
    model = network.load(job.input)
    del model["mini"]
    change(model)
    network.save(job.output, model, "minicopy")
    return {}


def copies(job: ConversionJob) -> dict[str, Any]:
    """Every weight as it is."""
    return _write(job, lambda _: None)


def rounds_one_weight_to_fp16(job: ConversionJob) -> dict[str, Any]:
    """One of 608 weights is rounded to fp16."""
    import numpy as np

    def change(model: dict[str, np.ndarray]) -> None:
        model["w2"][5, 3] = np.float32(np.float16(model["w2"][5, 3]))

    return _write(job, change)


def rounds_one_tensor_to_fp16(job: ConversionJob) -> dict[str, Any]:
    """One of five weight tensors is rounded to fp16."""
    import numpy as np

    def change(model: dict[str, np.ndarray]) -> None:
        model["w1"] = model["w1"].astype(np.float16).astype(np.float32)

    return _write(job, change)


def zeroes_one_weight(job: ConversionJob) -> dict[str, Any]:
    """One of 608 weights is lost."""

    def change(model: dict[str, np.ndarray]) -> None:
        model["w1"][7, 11] = 0

    return _write(job, change)


def swaps_activation(job: ConversionJob) -> dict[str, Any]:
    """The hyperbolic tangent becomes a rectifier."""
    import numpy as np

    def change(model: dict[str, np.ndarray]) -> None:
        model["activation"] = np.array("relu")

    return _write(job, change)


def lacks_operator(job: ConversionJob) -> dict[str, Any]:
    """The converter knows its limits."""
    raise Unsupported(f"minicopy has no operator Tanh, which '{job.input.name}' uses")


def raises(job: ConversionJob) -> dict[str, Any]:
    """The converter has a bug."""
    raise KeyError(f"no rule for {job.output.name}")


def writes_nothing(job: ConversionJob) -> dict[str, Any]:
    """The converter says that all is well, and there is no file."""
    return {"opset": 1}


def forgets_weights(job: ConversionJob) -> dict[str, Any]:
    """The file is there and lacks a tensor: the format's own checker sees it."""

    def change(model: dict[str, np.ndarray]) -> None:
        del model["b2"]

    return _write(job, change)


def segfaults(job: ConversionJob) -> dict[str, Any]:
    """The converter reads address 0."""
    return hazards.read_address_zero()


def exits_with_zero(job: ConversionJob) -> dict[str, Any]:
    """The converter ends the process as if all were well."""
    return hazards.exit_with_zero()


def hangs(job: ConversionJob) -> dict[str, Any]:
    """The converter never comes back, and neither does the process that it started."""
    return hazards.hang("converter")


def allocates_without_end(job: ConversionJob) -> dict[str, Any]:
    """The converter takes all the memory that it can get."""
    return hazards.allocate()
