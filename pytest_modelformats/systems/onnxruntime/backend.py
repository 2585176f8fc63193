"""ONNX Runtime. Runs in any interpreter with numpy and onnxruntime 1.20 or newer; ``onnx`` is not needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import NoDevice, RunError, Unsupported
from pytest_modelformats.schema import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from pytest_modelformats.schema.contract import Feed, SessionJob

LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
DTYPES = {"float": "float32", "double": "float64"}
ERRORS_ONLY = 3
NOTHING = 4  # what goes wrong in a session is raised, and told once
_FRAME = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+:\d+ [^(\n]*\([^)\n]*\) ")
_NODE = re.compile(r"Could not find an implementation for (\w+)\((\d+)\)")
_OPSET = re.compile(r"Opset (\d+) is under development.*?till opset (\d+)", re.DOTALL)
_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_UNKNOWN = re.compile(r"(\S+) is not a registered function/op|No Op registered for (\S+) with domain_version")


def open_session(job: SessionJob) -> OnnxRuntimeSession:
    """Open the model on one execution provider, with fallback to the CPU refused.

    Raises: NoDevice, Unsupported (names the operator or opset), RunError.
    """
    import onnxruntime

    level = str(job.options.get("optimization", "all"))
    if level not in LEVELS:
        msg = f"ONNX Runtime has no optimisation level '{level}'; known are {', '.join(LEVELS)}"
        raise Unsupported(msg)
    providers = _providers(job.device, job.precision, onnxruntime.get_available_providers())
    session = _session(job, providers)
    wanted = _name(providers[0])
    if wanted not in session.get_providers():
        msg = f"ONNX Runtime dropped {wanted} and opened '{job.artifact.name}' with {session.get_providers()}"
        raise NoDevice(msg)
    _refuse_collections(session, job)
    statement = {
        "execution_providers": list(session.get_providers()),
        "optimization": level,
        "threads": job.threads,
        "version": str(onnxruntime.__version__),
    }
    return OnnxRuntimeSession(
        session,
        job,
        statement,
        lambda prefix: _session(job, providers, prefix),
        lambda requests: _session(job, providers, requests=requests),
    )


def _session(job: SessionJob, providers: Sequence[Any], profile: str = "", requests: int = 0) -> Any:
    """An InferenceSession; with ``profile`` it writes what it runs to a file whose name begins so.

    With ``requests`` its pool has the threads of so many: ``run_async`` runs on the pool alone,
    which has one thread less than is asked for, because the caller of ``run`` counts as one.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
    if requests:
        options.intra_op_num_threads = job.threads * requests + 1
        # Idle threads of the pool would spin on the cores that the busy ones are pinned to.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level = LEVELS[str(job.options.get("optimization", "all"))]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = NOTHING
    onnxruntime.set_default_logger_severity(ERRORS_ONLY)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    if job.device != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        return onnxruntime.InferenceSession(str(job.artifact), options, providers=list(providers))
    except Exception as error:
        raise _explained(error, job) from error


def _providers(device: str, precision: str, available: Sequence[str]) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    _load_cuda_libraries()
    if "CUDAExecutionProvider" not in available:
        found = ", ".join(available)
        msg = f"this onnxruntime has no CUDAExecutionProvider (it has {found}); pip install onnxruntime-gpu"
        raise NoDevice(msg)
    # TF32 is on by default there: only a cell that asks for tf32 gets it.
    use_tf32 = "1" if precision == "tf32" else "0"
    # The CPU is not named beside it: "explicitly added the CPU EP … but also disabled fallback" would be refused.
    return [("CUDAExecutionProvider", {"device_id": "0", "use_tf32": use_tf32})]


def _load_cuda_libraries() -> None:
    """Load cuBLAS, cuDNN and the like from the ``nvidia-*`` packages, where pip has put them.

    Without them ONNX Runtime finds only what the system's loader finds, and opens the model on the CPU. The packages
    may have come with a torch that is built for the same CUDA. Versions before 1.21 cannot be told to.
    """
    import onnxruntime

    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        preload()


def _refuse_collections(session: Any, job: SessionJob) -> None:
    """Every output is a tensor: of a sequence, numpy would make one array or none."""
    for port in session.get_outputs():
        if not port.type.startswith("tensor("):
            msg = f"'{job.artifact.name}': its output '{port.name}' is a {port.type}; only tensors can be compared"
            raise Unsupported(msg)


def _name(provider: Any) -> str:
    return str(provider if isinstance(provider, str) else provider[0])


def _explained(error: Exception, job: SessionJob) -> Unsupported | RunError:
    """The error of this package that says what ONNX Runtime could not do with the model."""
    import onnxruntime

    text = str(error)
    runtime = f"onnxruntime {onnxruntime.__version__}"
    feature = missing_feature(text, job.artifact.name, job.device)
    if feature:
        return Unsupported(f"{runtime} {feature}")
    reason = _reason(error)
    message = f"{runtime} cannot open '{job.artifact.name}': {reason}"
    if type(error).__name__ == "NotImplemented" or "NOT_IMPLEMENTED" in text or "fallback to CPU EP" in text:
        return Unsupported(message)
    return RunError(message)


def _reason(error: Exception) -> str:
    """The first line of the message, without error codes and the places in ONNX Runtime's own source."""
    text = _FRAME.sub("", str(error))
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def missing_feature(text: str, name: str, device: str) -> str:
    """What the runtime lacks according to its error, "" where the error is of another kind."""
    if match := _NODE.search(text):
        return f"has no {device} implementation of {match[1]} (opset {match[2]})"
    if match := _OPSET.search(text):
        return f"supports opsets up to {match[2]}, the model has {match[1]}; convert with a lower --mf-opset"
    if match := _IR.search(text):
        return f"reads ONNX IR versions up to {match[2]}, '{name}' has {match[1]}"
    if match := _UNKNOWN.search(text):
        return f"does not know the operator {match[1] or match[2]}"
    return ""


class OnnxRuntimeSession:
    """An InferenceSession."""

    def __init__(
        self,
        session: Any,
        job: SessionJob,
        statement: Mapping[str, Any],
        again: Callable[[str], Any],
        several: Callable[[int], Any] | None = None,
    ) -> None:
        """Take over an open InferenceSession.

        ``again(prefix)`` opens another one that profiles, ``several(n)`` one whose pool has threads for n requests.
        """
        self.inputs = [_spec(port) for port in session.get_inputs()]
        self.outputs = [_spec(port) for port in session.get_outputs()]
        self.statement = statement
        self._session = session
        self._device = job.device
        self._artifact = job.artifact
        self._again = again
        self._several = several
        self._threads = job.threads

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Run once; raises RunError with what ONNX Runtime says."""
        import numpy as np

        try:
            return [np.asarray(output) for output in self._session.run(None, dict(feed))]
        except Exception as error:  # its error classes share no base but Exception
            msg = f"ONNX Runtime raised while running: {_reason(error)}"
            raise RunError(msg) from error

    def bind(self, feed: Feed) -> Callable[[], object]:
        """Put the inputs into the runtime's own tensors; the call runs and waits for outputs in its own tensors."""
        import onnxruntime

        binding = self._session.io_binding()
        for name, array in feed.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array, self._device, 0)
            binding.bind_ortvalue_input(name, value)
        for spec in self.outputs:
            binding.bind_output(spec.name, self._device)
        run = self._session.run_with_iobinding
        if self._device == "cpu":
            return lambda: run(binding)

        def run_and_wait() -> None:
            run(binding)
            binding.synchronize_outputs()

        return run_and_wait

    def asynchronous(self, requests: int) -> OnnxRuntimeAsynchronous:
        """``run_async`` on a session of its own, whose pool has threads for so many requests.

        Raises: Unsupported on a GPU, where inputs and outputs would cross the bus inside of what is timed.
        """
        if self._several is None or self._device != "cpu":
            raise Unsupported("run_async takes numpy arrays, so on a device it would time the copies too")
        return OnnxRuntimeAsynchronous(self._several(requests), requests, self._threads)

    def execution(self, feed: Feed) -> dict[str, Any]:
        """What ONNX Runtime ran for a feed, where and at which precision: from a profile of a session of its own."""
        from pytest_modelformats.systems.onnxruntime.profile import profiled

        providers = [str(provider) for provider in self._session.get_providers()]
        guarded = self._device != "cpu"
        options = self._session.get_provider_options().get("CUDAExecutionProvider", {})
        tf32 = options.get("use_tf32") == "1"
        found = profiled(self._again, feed, self._artifact, tf32=tf32)
        allowed = {"use_tf32": tf32} if guarded else {}
        return {**found, "execution_providers": providers, "cpu_fallback_disabled": guarded, **allowed}

    def close(self) -> None:
        """Drop the session; ONNX Runtime frees it with the last reference."""
        self._session = None


class OnnxRuntimeAsynchronous:
    """Calls of ``run_async`` (see ``contract.Asynchronous``)."""

    def __init__(self, session: Any, requests: int, threads: int) -> None:
        """Take over a session whose pool has the threads of so many requests."""
        self.requests = [_AsynchronousCall(session) for _ in range(requests)]
        self.statement = {
            "requests": requests,
            "intra_op_threads": threads * requests + 1,
            "pool_threads": threads * requests,
            "allow_spinning": False,
        }

    def close(self) -> None:
        """Drop the session with the requests that hold it."""
        self.requests = []


class _AsynchronousCall:
    def __init__(self, session: Any) -> None:
        self._session = session
        self._feed: dict[str, Any] = {}
        self._outputs: list[Any] = []

    def bind(self, feed: Feed) -> None:
        self._feed, self._outputs = dict(feed), []

    def start(self, done: Callable[[str], None]) -> None:
        def finished(results: Any, _: Any, error: str) -> None:
            self._outputs = [] if error else list(results)
            done(error)

        self._session.run_async(None, self._feed, finished, None)

    def outputs(self) -> list[np.ndarray]:
        import numpy as np

        return [np.array(output) for output in self._outputs]


def _spec(port: Any) -> TensorSpec:
    """A session's input or output; ``tensor(float)`` is its way to write float32."""
    kind = port.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(d if isinstance(d, int) else d or ("N" if i == 0 else f"D{i}") for i, d in enumerate(port.shape))
    return TensorSpec(port.name, DTYPES.get(kind, kind), shape)


def open_alone(settings: Mapping[str, Any]) -> tuple[Any, list[list[Any]], list[list[Any]]]:
    """Open the artifact as :func:`open_session` does; the source of this goes into reproduction bundles as it is."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = settings["threads"], 1
    level = {"disable": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}
    chosen = level[settings["options"].get("optimization", "all")]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{chosen}")
    providers: list[Any] = ["CPUExecutionProvider"]
    if settings["device"] == "cuda":
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        tf32 = "1" if settings["precision"] == "tf32" else "0"
        providers = [("CUDAExecutionProvider", {"device_id": "0", "use_tf32": tf32})]
    session = onnxruntime.InferenceSession(settings["artifact"], options, providers=providers)

    def stated(ports: Any) -> list[list[Any]]:
        kinds = [port.type.replace("tensor(", "").replace(")", "") for port in ports]
        dtypes = [{"float": "float32", "double": "float64"}.get(kind, kind) for kind in kinds]
        shapes = [[d if isinstance(d, int) else None for d in port.shape] for port in ports]
        return [[port.name, dtype, shape] for port, dtype, shape in zip(ports, dtypes, shapes, strict=True)]

    return lambda feed: session.run(None, feed), stated(session.get_inputs()), stated(session.get_outputs())


# What reproduction bundles open an artifact with, without this package (CONTRIBUTING.md).
ALONE = (open_alone,)
