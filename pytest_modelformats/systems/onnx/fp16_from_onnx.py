"""ONNX fp32 to fp16 inside, with the inputs and outputs kept as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError, Unsupported
from pytest_modelformats.systems.onnx import exporting
from pytest_modelformats.systems.onnx import graph as onnx_graph
from pytest_modelformats.systems.onnx.format import check
from pytest_modelformats.systems.onnx.half import opening, structure
from pytest_modelformats.systems.onnx.half.producers import PRODUCERS, Producer
from pytest_modelformats.systems.onnx.half.repair import repair
from pytest_modelformats.systems.onnx.half.rounding import round_constants

if TYPE_CHECKING:
    import onnx

    from pytest_modelformats.schema.contract import ConversionJob


def convert(job: ConversionJob) -> dict[str, Any]:
    """Turn weights and operators to fp16; opset and IR version stay.

    What a library makes is checked and opened; where it does not hold together it is mended, and where that does not
    help the next library is asked. ``exporter`` of what is returned names the library, ``repaired`` what was mended,
    ``truncated_values`` how many constants fp16 cannot hold and were set to the nearest that it can.

    Raises: Unsupported for a model that computes in fp16 in places already; ConvertError with what each library's model
    was refused for.
    """
    from onnxconverter_common import float16

    if float16.check_if_fp16_ready(onnx_graph.load_model(job.input).graph):
        raise Unsupported(
            f"'{job.input.name}' computes in fp16 in places already, and onnxconverter-common only takes models that "
            "are fp32 throughout; export it to fp32 and let this tool make the fp16 of it"
        )
    refused = []
    for producer in PRODUCERS:
        facts, reason = _made(job, producer)
        if facts:
            return facts
        refused.append(f"{producer.library}: {reason.rstrip('.')}")
    msg = f"no converter makes an fp16 model of '{job.input.name}' that holds together ({'; '.join(refused)})"
    raise ConvertError(msg)


def _made(job: ConversionJob, producer: Producer) -> tuple[dict[str, Any], str]:
    """Write what a library makes, if need be mended, and return its facts; or nothing and why it is refused."""
    module = producer.load()
    if module is None:
        return {}, "not installed (pip install onnxruntime)"
    try:
        half = producer.convert(module, structure.prepare(onnx_graph.load_model(job.input)))
    except Exception as error:  # noqa: BLE001 - the libraries raise bare Exception and what their graph surgery meets
        return {}, onnx_graph.first_line(error)
    source = onnx_graph.load_model(job.input)
    structure.list_weights(half, source)
    truncated = round_constants(half, source)
    repaired: tuple[str, ...] = ()
    reason = _refusal(half, source, job)
    if reason:
        # As it was written: saving large weights beside the file takes them out of the model in memory.
        half, repaired = repair(onnx_graph.load_model(job.output), source, producer.blocked(module))
        reason = _refusal(half, source, job)
    facts = {
        "opset": next(int(o.version) for o in half.opset_import if o.domain in ("", "ai.onnx")),
        "ir_version": int(half.ir_version),
        "exporter": producer.exporter,
        "repaired": list(repaired),
        "truncated_values": truncated,
    }
    return ({}, reason) if reason else (facts, "")


def _refusal(half: onnx.ModelProto, source: onnx.ModelProto, job: ConversionJob) -> str:
    """Write a model, and say why it does not hold together; "" where it does."""
    import onnx

    large = half.ByteSize() > exporting.INLINE_LIMIT_BYTES
    data = f"{job.output.name}.data"
    (job.output.parent / data).unlink(missing_ok=True)  # onnx.save would add to it
    onnx.save(half, str(job.output), save_as_external_data=large, location=data if large else None)
    others = [value.name for value, _ in structure.interface(half, source)]
    if others:
        return f"it changes the element type of {', '.join(others)}"
    try:
        check(job.output)
    except ConvertError as error:
        return str(error)
    said = opening.refusal(job.output, job.input)
    return f"ONNX Runtime does not open it: {said}" if said else ""
