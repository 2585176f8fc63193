"""OpenVINO's CPU plugin, with the precision always stated and read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import RunError, Unsupported
from pytest_modelformats.systems.openvino import ir as openvino_ir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from pytest_modelformats.schema.contract import Feed, SessionJob

# "default" gives no hint: the plugin then picks bf16 on machines with bf16 units, which the verdict sees.
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "fp16-weights": "f32"}


def open_session(job: SessionJob) -> OpenVinoSession:
    """Compile the model for one stream and the given number of threads.

    Raises: Unsupported, RunError.
    """
    import openvino

    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": job.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if job.precision in HINTS:
        settings["INFERENCE_PRECISION_HINT"] = HINTS[job.precision]
    core = openvino.Core()
    try:
        compiled = core.compile_model(core.read_model(str(job.artifact)), "CPU", settings)
    except RuntimeError as error:
        reason = openvino_ir.reason(error)
        missing = "not supported" in reason.lower() or "unsupported" in reason.lower()
        msg = f"OpenVINO {openvino.__version__} cannot compile '{job.artifact.name}': {reason}"
        raise (Unsupported if missing else RunError)(msg) from error
    statement = {
        "precision_hint": compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
        "precision_asked": settings.get("INFERENCE_PRECISION_HINT", "none"),
        "capabilities": [str(c) for c in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")],
        "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
        "version": str(openvino.__version__),
    }

    def streams(requests: int) -> Any:
        """The same model compiled for a number of requests at once, each with the threads of one."""
        several = {
            "INFERENCE_NUM_THREADS": job.threads * requests,
            "NUM_STREAMS": requests,
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        return core.compile_model(core.read_model(str(job.artifact)), "CPU", {**settings, **several})

    return OpenVinoSession(compiled, statement, streams, [s.name for s in job.inputs], [s.name for s in job.outputs])


def names_of(ports: Sequence[Any], wanted: Sequence[str]) -> list[str]:
    """Call each port by the one of its names that is wanted at its place, or else elsewhere; "" where it has none.

    Compiling merges tensors, and with them their sets of names. The source of this goes into reproduction bundles.
    """
    found = [name if name in port.get_names() else "" for port, name in zip(ports, wanted)]  # noqa: B905 - another number of them is the contract's to say
    found += [""] * (len(ports) - len(found))
    for place, port in enumerate(ports):
        others = [name for name in wanted if name in port.get_names() and name not in found]
        if not found[place] and port.get_names():
            found[place] = others[0] if others else port.get_any_name()
    return found


class OpenVinoSession:
    """A compiled model."""

    def __init__(
        self,
        compiled: Any,
        statement: Mapping[str, Any],
        streams: Callable[[int], Any] | None = None,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
    ) -> None:
        """Take over a compiled model; ``streams(n)`` compiles it again, for n requests at once.

        ``inputs`` and ``outputs`` are the contract's names: what a port is called where it has several.
        """
        self.inputs = openvino_ir.specs(compiled.inputs, names_of(compiled.inputs, inputs))
        self.outputs = openvino_ir.specs(compiled.outputs, names_of(compiled.outputs, outputs))
        self.statement = statement
        self._compiled = compiled
        self._streams = streams

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Run once on a fresh request (a used one may refuse a larger shape); raises RunError."""
        request = self._request(feed)
        try:
            request.infer()
        except RuntimeError as error:
            msg = f"OpenVINO raised while running: {openvino_ir.reason(error)}"
            raise RunError(msg) from error
        return [openvino_ir.array(request.get_output_tensor(i)) for i in range(len(self.outputs))]

    def bind(self, feed: Feed) -> Callable[[], object]:
        """Set the inputs of a request of its own; the call infers."""
        infer: Callable[[], object] = self._request(feed).infer
        return infer

    def asynchronous(self, requests: int) -> OpenVinoAsynchronous:
        """The model compiled for throughput, a stream per request, with requests that are started asynchronously."""
        if self._streams is None:
            raise Unsupported("the model was not opened from a file, so it cannot be compiled for several streams")
        names = [spec.name for spec in self.inputs], [spec.name for spec in self.outputs]
        return OpenVinoAsynchronous(OpenVinoSession(self._streams(requests), self.statement, None, *names), requests)

    def execution(self, feed: Feed) -> dict[str, Any]:
        """What the plugin's execution graph and its properties state; nothing is run for it."""
        from pytest_modelformats.compare.stated_execution import TYPES, Node, tally

        del feed
        devices = [str(device) for device in self._compiled.get_property("EXECUTION_DEVICES")]
        device = devices[0].partition(".")[0].lower() if len(devices) == 1 else ",".join(devices)
        facts = [op.get_rt_info() for op in self._compiled.get_runtime_model().get_ordered_ops()]
        nodes = [Node(_fact(f, "layerType"), TYPES.get(_fact(f, "runtimePrecision"), ""), device) for f in facts]
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return {**tally(nodes, "execution graph"), "nodes": len(nodes), "execution_devices": devices, "hint": hint}

    def close(self) -> None:
        """Drop the compiled model; OpenVINO frees it with the last reference."""
        self._compiled = self._streams = None

    def stated(self) -> dict[str, Any]:
        """What the plugin says is set for running several requests at once."""
        names = ("NUM_STREAMS", "INFERENCE_NUM_THREADS", "PERFORMANCE_HINT")
        return {name.lower(): _plain(self._compiled.get_property(name)) for name in names}

    def _request(self, feed: Feed) -> Any:
        """A request that owns copies of the inputs; other dtypes are refused, OpenVINO would cast them silently."""
        known = {spec.name for spec in self.inputs}
        if known != set(feed):
            msg = f"the model's inputs are {sorted(known)}, {sorted(feed)} were fed"
            raise RunError(msg)
        request = self._compiled.create_infer_request()
        for index, spec in enumerate(self.inputs):
            array = feed[spec.name]
            if array.dtype.name != ("float32" if spec.dtype == "bfloat16" else spec.dtype):
                msg = f"the input '{spec.name}' is {spec.dtype}, {array.dtype.name} was fed"
                raise RunError(msg)
            try:
                request.set_input_tensor(index, openvino_ir.tensor_of(array, spec.dtype))
            except RuntimeError as error:
                msg = f"OpenVINO refuses the shape {array.shape} for {spec}: {openvino_ir.reason(error)}"
                raise RunError(msg) from error
        return request


class OpenVinoAsynchronous:
    """Requests of one compiled model (see ``contract.Asynchronous``)."""

    def __init__(self, session: OpenVinoSession, requests: int) -> None:
        """Take over a session that was compiled for so many streams."""
        self._session = session
        self.requests = [_OpenVinoRequest(session) for _ in range(requests)]
        self.statement = {"requests": requests, **session.stated()}

    def close(self) -> None:
        """Drop the requests and the model."""
        self.requests = []
        self._session.close()


class _OpenVinoRequest:
    def __init__(self, session: OpenVinoSession) -> None:
        self._session = session
        self._request: Any = None

    def bind(self, feed: Feed) -> None:
        # A request of its own: one that has run may refuse another shape.
        self._request = self._session._request(feed)  # noqa: SLF001 - the other half of the session
        self._request.set_callback(_say, None)

    def start(self, done: Callable[[str], None]) -> None:
        self._request.set_callback(_say, done)
        self._request.start_async()

    def outputs(self) -> list[np.ndarray]:
        count = len(self._session.outputs)
        return [openvino_ir.array(self._request.get_output_tensor(i)) for i in range(count)]


def _say(done: Callable[[str], None] | None) -> None:
    if done is not None:
        done("")


def _plain(value: Any) -> int | str:
    """A property as a number or a word: hints are enumerations."""
    if isinstance(value, (int, str)):
        return value
    return str(getattr(value, "name", value))


def _fact(facts: Any, name: str) -> str:
    """One entry of an operator's runtime information, "" where it has none."""
    return str(facts[name].astype(str)) if name in facts else ""


def open_alone(settings: Mapping[str, Any]) -> tuple[Any, list[list[Any]], list[list[Any]]]:
    """Open the artifact as :func:`open_session` does; the source of this goes into reproduction bundles as it is."""
    import sys

    import numpy as np

    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # it would report its use to Intel
    import openvino

    chosen = {"INFERENCE_NUM_THREADS": settings["threads"], "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    hints = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "fp16-weights": "f32"}
    if settings["precision"] in hints:
        chosen["INFERENCE_PRECISION_HINT"] = hints[settings["precision"]]
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(settings["artifact"]), "CPU", chosen)
    inputs = names_of(compiled.inputs, [spec["name"] for spec in settings["inputs"]])
    outputs = names_of(compiled.outputs, [spec["name"] for spec in settings["outputs"]])

    def run(feed: Mapping[str, Any]) -> list[Any]:
        request = compiled.create_infer_request()
        for index, port in enumerate(compiled.inputs):
            array = np.asarray(feed[inputs[index]], order="C")
            tensor = openvino.Tensor(array)
            if port.get_element_type() == openvino.Type.bf16:  # numpy has no bfloat16: float32 that it holds exactly
                tensor = openvino.Tensor(openvino.Type.bf16, list(array.shape))
                tensor.data.view(np.uint16)[...] = (array.view(np.uint32) >> np.uint32(16)).reshape(array.shape)
            request.set_input_tensor(index, tensor)
        request.infer()
        return [array_of(request.get_output_tensor(i)) for i in range(len(compiled.outputs))]

    def array_of(tensor: Any) -> Any:
        if tensor.element_type != openvino.Type.bf16:
            return tensor.data.copy()
        return (tensor.data.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)

    def stated(ports: Any, names: Sequence[str]) -> list[list[Any]]:
        found = []
        for port, name in zip(ports, names, strict=True):
            dims = port.get_partial_shape()
            shape = None if dims.rank.is_dynamic else [None if d.is_dynamic else d.get_length() for d in dims]
            found.append([name, np.dtype(port.get_element_type().to_dtype()).name, shape])
        return found

    return run, stated(compiled.inputs, inputs), stated(compiled.outputs, outputs)


# What reproduction bundles open an artifact with, without this package (CONTRIBUTING.md).
ALONE = (names_of, open_alone)
