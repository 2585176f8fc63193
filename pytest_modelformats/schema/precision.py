"""Arithmetics that a cell can ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Precision:
    """An arithmetic that a cell can ask for.

    ``mantissa_bits`` are the explicitly stored ones. ``limit`` is the k(p) of the verdict
    rule (``floating.py`` says where it comes from). ``weights_only`` precisions round the
    weights and compute in fp32. ``judged_as`` is the precision whose noise counts.
    ``operands_only`` precisions round what goes into matrix products and convolutions;
    sums and results are fp32.
    """

    name: str
    mantissa_bits: int
    limit: float
    weights_only: bool = False
    judged_as: str = ""
    operands_only: bool = False

    @property
    def result_bits(self) -> int:
        """The mantissa bits that an output of this precision is written down with: fp32's where fp32 is computed in."""
        return 23 if self.operands_only or self.weights_only else self.mantissa_bits

    @property
    def yardstick(self) -> str:
        """The precision whose measured noise a cell of this precision is judged by."""
        return self.judged_as or self.name


PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        Precision("fp32", 23, 4.0),
        Precision("tf32", 10, 4.0, operands_only=True),
        Precision("fp16", 10, 2.0),
        Precision("bf16", 7, 2.0),
        Precision("fp16-weights", 10, 2.0, weights_only=True),
        # What the runtime picks when it is told nothing; the artifact holds fp32, so fp32 is what was asked.
        Precision("default", 23, 4.0, judged_as="fp32"),
    )
}
