"""What the four PyTorch backends share: devices, threads, and a session over anything that can be called."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import (
    MissingDependency,
    ModelFormatsError,
    NoDevice,
    OutOfMemory,
    RunError,
    Unsupported,
)
from pytest_modelformats.schema.dtypes import own_dtypes
from pytest_modelformats.systems.torch.loading.programs import first_line
from pytest_modelformats.systems.torch.reference.calling import arguments, flatten, to_numpy, to_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from pytest_modelformats.schema import TensorSpec
    from pytest_modelformats.schema.contract import Feed, SessionJob


class TorchSession:
    """An opened torch callable (see ``contract.Session``).

    ``signature`` is what says how inputs are passed, where the callable itself is a compiler's wrapper.
    """

    def __init__(
        self,
        module: Any,
        job: SessionJob,
        *,
        inputs: tuple[TensorSpec, ...] = (),
        outputs: tuple[TensorSpec, ...] = (),
        statement: Mapping[str, Any],
        signature: Any = None,
    ) -> None:
        """Hold the callable and what is stated of it; nothing is run."""
        self._module = module
        self._job = job
        self._signature = module if signature is None else signature
        self.inputs = inputs
        self.outputs = outputs
        self.statement = statement

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Return the outputs as arrays, in the module's order."""
        args, kwargs = self._tensors(feed)
        return [to_numpy(tensor) for _, tensor in flatten(_guarded(self._module, args, kwargs))]

    def bind(self, feed: Feed) -> Callable[[], object]:
        """Move the inputs to the device once; the returned call ends when the outputs are complete there."""
        import torch

        args, kwargs = self._tensors(feed)
        module = self._module
        torch.set_num_threads(self._job.threads)

        def call() -> object:
            return _guarded(module, args, kwargs)

        def call_and_wait() -> object:
            outputs = _guarded(module, args, kwargs)
            torch.cuda.synchronize()
            return outputs

        return call_and_wait if self._job.device == "cuda" else call

    def phases(self, feed: Feed) -> dict[str, float]:
        """Copy to the GPU, computation and copy back, by events of the GPU; {} on a CPU, where nothing is copied.

        Units: nanoseconds, the median of several calls.
        """
        if self._job.device != "cuda":
            return {}
        from pytest_modelformats.systems.torch.phases import split

        held = self._held(feed)

        def run(tensors: dict[str, Any]) -> list[Any]:
            args, kwargs = arguments(self._signature, tensors)
            return [tensor for _, tensor in flatten(_guarded(self._module, args, kwargs))]

        return split(held, run)

    def execution(self, feed: Feed) -> dict[str, Any]:
        """What PyTorch states: dtypes and devices of the weights, and the flags that decide the arithmetic."""
        from pytest_modelformats.systems.torch.statement import stated

        del feed
        return stated(self._signature, self._job.device)

    def close(self) -> None:
        """Let go of the module and give the device its memory back."""
        import torch

        self._module = self._signature = None
        if self._job.device == "cuda":
            torch.cuda.empty_cache()

    def _tensors(self, feed: Feed) -> tuple[tuple[Any, ...], dict[str, Any]]:
        tensors = {name: tensor.to(self._job.device) for name, tensor in self._held(feed).items()}
        return arguments(self._signature, tensors)

    def _held(self, feed: Feed) -> dict[str, Any]:
        """The feed as tensors on the CPU, in the contract's order.

        Only bfloat16, which numpy lacks, is cast: any other difference of dtype is the model's to refuse.
        """
        wanted = [(spec.name, spec.dtype) for spec in self._job.inputs]
        own = own_dtypes(wanted, [(spec.name, spec.dtype) for spec in self.inputs], self._job.precision)
        dtypes = {**dict(wanted), **own}
        names = [name for name, _ in wanted] or list(feed)
        kinds = {name: "bfloat16" if dtypes.get(name) == "bfloat16" else "" for name in names}
        return {name: to_tensor(feed[name], kinds[name]) for name in names}


def _guarded(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    import torch

    try:
        with torch.inference_mode():
            return module(*args, **kwargs)
    except ModelFormatsError:
        raise
    except torch.OutOfMemoryError as error:
        msg = f"the device ran out of memory: {first_line(error)}"
        raise OutOfMemory(msg) from error
    except Exception as error:  # the model's own code runs here, and compilers raise errors of their own
        if isinstance(error, NotImplementedError) or "not implemented for" in str(error):
            msg = f"PyTorch has no kernel for it: {first_line(error)}"
            raise Unsupported(msg) from error
        if "InvalidCxxCompiler" in str(error) or "Python.h" in str(error):
            msg = (
                "torch.compile builds C++ on this machine and finds no working compiler with Python's headers; "
                "install g++ and the Python headers (Debian: apt-get install g++ python3-dev)"
            )
            raise MissingDependency(msg) from error
        msg = f"PyTorch raised while running the model ({type(error).__name__}): {first_line(error)}"
        raise RunError(msg) from error


def prepare(job: SessionJob) -> dict[str, Any]:
    """Set threads and float32 arithmetic for a session; return what torch then states about them.

    Raises: NoDevice where CUDA is asked for and cannot be used.
    """
    import torch

    if job.device == "cuda" and not torch.cuda.is_available():
        reason = "was built without CUDA" if torch.version.cuda is None else "finds no usable NVIDIA GPU or driver"
        msg = f"torch {torch.__version__} {reason}, so '@cuda' cannot run here"
        raise NoDevice(msg)
    torch.set_num_threads(job.threads)
    _one_interop_thread()
    # TF32 and bf16 stand-ins for float32 matmuls are another precision than fp32: only a tf32 cell gets them.
    tf32 = job.precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    statement = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if job.device == "cuda" else "cpu",
        "precision": job.precision,
        "dtype": {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}.get(
            job.precision, job.precision
        ),
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32),
        "autocast": bool(torch.is_autocast_enabled(job.device)),
        "threads": torch.get_num_threads(),
    }
    if job.device == "cpu":
        statement["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    return statement


@cache
def _one_interop_thread() -> None:
    """Let operators of one graph run one after another; torch takes this once per process."""
    import torch

    try:
        torch.set_num_interop_threads(1)
    except RuntimeError:
        # Parallel work has started already, in a process that is not ours alone (--mf-isolate none).
        return


def eager_module(job: SessionJob) -> Any:
    """Return the source's module on the job's device, computing at the job's precision inside."""
    from pytest_modelformats.systems.torch.loading.load import load_module
    from pytest_modelformats.systems.torch.reference.calling import contract_module

    module = load_module(job.source)
    names = [spec.name for spec in job.inputs]
    single = job.precision in {"fp32", "tf32"}  # TF32 is a way to compute with float32 weights
    if single and job.device == "cpu":
        return module
    if single:
        import copy

        module = copy.deepcopy(module)
        return module.to(job.device)
    return contract_module(module, names, job.precision).to(job.device)
