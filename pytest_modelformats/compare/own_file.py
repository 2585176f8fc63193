"""The model's own file, run as it is at the precision that it is written down in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.schema import PRECISIONS, Outcome

if TYPE_CHECKING:
    from pytest_modelformats.schema import OutputParity, PlannedCell, Verdict


def finer_is_faithful(planned: PlannedCell, verdict: Verdict) -> Verdict:
    """A fallback that passes, where the file is the model and all that fell back was computed more finely.

    A model written down in fp16 asks for no arithmetic: its numbers are exact in fp32, and a runtime that has no
    fp16 kernels (ONNX Runtime on a CPU) computes with these. Of a conversion to fp16 it is another precision than
    the asked one.
    """
    own = not planned.chain and not planned.candidate_path and planned.artifact_precision == planned.cell.precision
    asked = PRECISIONS[planned.cell.precision]
    if not own or asked.name == "fp32" or verdict.outcome is not Outcome.FALLBACK:
        return verdict
    fell = [o for o in verdict.outputs if o.outcome is Outcome.FALLBACK]
    if not fell or any(PRECISIONS[o.effective_precision].mantissa_bits <= asked.mantissa_bits for o in fell):
        return verdict
    outputs = tuple(_passed(o, asked.name) if o.outcome is Outcome.FALLBACK else o for o in verdict.outputs)
    sentence = next(new.sentence for new, o in zip(outputs, verdict.outputs, strict=True) if o is fell[0])
    return replace(verdict, outcome=Outcome.PASSED, failure_kind=None, sentence=sentence, outputs=outputs)


def _passed(output: OutputParity, asked: str) -> OutputParity:
    sentence = (
        f"Output '{output.name}': error {output.error_rms:.2g} rms is {output.noise_ratio:.2g} × what rounding at "
        f"{asked} explains ({output.noise_rms:.2g}): the file's {asked} numbers were computed with in "
        f"{output.effective_precision}, which is finer. It is the same model."
    )
    return replace(output, outcome=Outcome.PASSED, failure_kind=None, sentence=sentence)
