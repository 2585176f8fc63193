"""The stages of a cell that judge and measure: what the fixtures hand out.

Runs in the pytest process. Models are described and evaluated by ``models.py``, cells are
converted and run by ``run/cells.py``; here their results are compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.checks import batch as batches
from pytest_modelformats.checks import further_sizes, near_ties, unusual_rows
from pytest_modelformats.checks.after_others import history
from pytest_modelformats.checks.concurrency import concurrency, refuse_one_at_a_time
from pytest_modelformats.checks.contract import contract
from pytest_modelformats.checks.fuzz.search import Fuzzer
from pytest_modelformats.checks.permutation import permutation
from pytest_modelformats.checks.subject import Subject
from pytest_modelformats.checks.threads import threads
from pytest_modelformats.checks.throughput import measure as measure_throughput
from pytest_modelformats.checks.tolerances import check_outputs
from pytest_modelformats.checks.unmodified import unmodified
from pytest_modelformats.compare import (
    between_runs,
    effective_precision,
    second_look,
    stated_execution,
    tolerances,
    usability,
)
from pytest_modelformats.compare.reference import ESTIMATED, word
from pytest_modelformats.compare.sampled import alike, shares
from pytest_modelformats.compare.stress import judge_stress, truth_rms
from pytest_modelformats.compare.verdict import judge, with_accuracy
from pytest_modelformats.errors import ConvertError, ModelFormatsError, NotMeasured, RunError, Unsupported
from pytest_modelformats.run.cells import Cells
from pytest_modelformats.run.models import Models
from pytest_modelformats.run.workers.asking import Asker, write_feed
from pytest_modelformats.schema import (
    PRECISIONS,
    FailureKind,
    Outcome,
    PlannedCell,
    Precision,
    Timing,
    Verdict,
)
from pytest_modelformats.schema.sizes import by_name
from pytest_modelformats.source import sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from pytest_modelformats.checks.throughput import Scenario, Throughput
    from pytest_modelformats.compare.floating import Tolerance
    from pytest_modelformats.compare.reference import Reference
    from pytest_modelformats.convert.cache import Cache
    from pytest_modelformats.convert.chain import Artifact
    from pytest_modelformats.run.workers.pool import Pool
    from pytest_modelformats.schema import Source
    from pytest_modelformats.settings.nouns import Settings


class Stages:
    """Artifact, outputs, verdicts and timing of a cell, each made when it is first asked for."""

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[Source],
        data: Mapping[str, str],
        pool: Pool,
        cache: Cache,
        progress: Callable[[str], Callable[[float], None] | None],
    ) -> None:
        """``progress(what)`` returns a function that shows the elapsed seconds, or ``None`` when nobody watches."""
        self.pool = pool
        self.cache = cache
        self.rootdir = settings.rootdir
        self._settings = settings
        self._asker = self.asker = Asker(pool, settings.timeout_s, progress)
        self.models = Models(settings, sources, data, self._asker, cache)
        self.cells = Cells(settings, self.models, self._asker, cache)
        self.fuzzer = Fuzzer(settings, self.models, cache.folder)
        # What a cell failed on that is right at the samples' sizes, by its id.
        self.at_size: dict[str, further_sizes.AtSize] = {}

    @property
    def conversions(self) -> dict[str, int]:
        """How many conversions were made and how many came from the cache, so far."""
        return self.cells.conversions

    def leave(self) -> None:
        """Let go of the current cell."""
        self.cells.leave()

    def artifact(self, planned: PlannedCell) -> Artifact:
        """The cell's model in the cell's format."""
        return self.cells.artifact(planned)

    def reference(self, planned: PlannedCell) -> Reference:
        """The float64 truth and the noise per precision, over all samples."""
        return self.models.reference(planned.cell.model)

    def run(self, planned: PlannedCell, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The cell's outputs for one feed, in the contract's order."""
        return self.cells.run(planned, feed)

    def outputs(self, planned: PlannedCell) -> list[list[np.ndarray]]:
        """The cell's outputs for all samples: [feed][output]."""
        return self.cells.once(
            "outputs",
            planned,
            lambda: [self.cells.run(planned, f) for f in self.models.samples(planned.cell.model).feeds],
        )

    def contract(self, planned: PlannedCell) -> Verdict:
        """Whether names, order, dtypes, ranks and dynamic dimensions survived."""
        return contract(self.models, self.cells, self._asker, planned, self.invented(planned))

    def invented(self, planned: PlannedCell) -> tuple[str, ...]:
        """The names of outputs that are no contract: what is converted here has the tool's, a user's file its own."""
        return self.models.description(planned.cell.model).invented if planned.candidate_path else ()

    def parity(self, planned: PlannedCell) -> Verdict:
        """The verdict of design §5."""

        def load() -> Verdict:
            self.check_tolerances(planned)
            model, asked = planned.cell.model, PRECISIONS[planned.cell.precision]
            self.models.need_noise(model, asked.yardstick)
            noise = self.models.reference(model).noise
            stated = self.cells.execution(planned, self.models.rows(model, 0, 1))
            verdict = self._judged(planned, asked, stated)
            ran = stated_execution.coarser(stated, asked, noise)
            if ran and verdict.failure_kind is FailureKind.NUMERIC:  # is it what the runtime says that it ran?
                again = self._judged(planned, PRECISIONS[ran], stated)
                told = again.outcome in {Outcome.PASSED, Outcome.INCONCLUSIVE}
                verdict = stated_execution.as_asked(again, stated, ran, asked) if told else verdict
            verdict = replace(verdict, statement=dict(self.cells.session(planned).statement))
            verdict = stated_execution.examined(verdict, stated, planned, noise)
            verdict = self._in_part(planned, verdict)
            return self._with_accuracy(planned, verdict)

        return self.cells.once("parity", planned, load)

    def _judged(self, planned: PlannedCell, precision: Precision, stated: Mapping[str, Any]) -> Verdict:
        """The verdict by a precision's noise: samples first, then what else is asked of what passed."""
        model = planned.cell.model
        description, reference = self.models.description(model), self.models.reference(model)
        feeds, outputs = self.models.samples(model).feeds, self.outputs(planned)
        verdict = judge(
            [s.name for s in description.outputs],
            reference.truths,
            outputs,
            reference.noise,
            precision,
            dtypes=[s.dtype for s in description.outputs],
            classifier=description.classifier,
            tolerances=self._tolerances(planned),
        )
        verdict = usability.examined(verdict, reference.noise, precision, usability.ranges(reference.truths))
        verdict = near_ties.examined(self.models, model, verdict, feeds, outputs, precision)
        verdict = stated_execution.with_wider_sums(verdict, stated, precision)
        examined = self._examined(planned, verdict, precision)
        verdict = effective_precision.finer_is_faithful(planned, examined, reference.noise)
        verdict = self._looked_at(planned, verdict, precision)
        verdict = self._stressed(planned, verdict, precision)
        return self._at_further_sizes(planned, verdict, precision)

    def _with_accuracy(self, planned: PlannedCell, verdict: Verdict) -> Verdict:
        model = planned.cell.model
        labels = self.models.samples(model).labels
        classifier = self.models.description(model).classifier
        if labels is None or not classifier or verdict.failure_kind is FailureKind.CONTRACT:
            return verdict
        got = [o[0] for o in self.outputs(planned)]
        return with_accuracy(verdict, labels, [t[0] for t in self.models.reference(model).truths], got)

    def determinism(self, planned: PlannedCell) -> Verdict:
        """The same input twice, and in a fresh session."""
        model = planned.cell.model
        feed = self.models.rows(model, 0, 1)
        first, again = self._repeats(planned)
        self.cells.close("first")
        fresh = self.cells.run(planned, feed, "fresh")
        reference, precision = self.models.reference(model), self._running(planned)
        names = [s.name for s in self.models.description(model).outputs]
        return between_runs.determinism(names, first, again, fresh, reference.noise, precision)

    def batch(self, planned: PlannedCell) -> Verdict:
        """Batches of 1, 2, 3 and 7 agree with the source, and each row with itself alone."""
        return self._in_part(planned, batches.law(self._subject(planned)))

    def permutation(self, planned: PlannedCell) -> Verdict:
        """The rows of a batch in another order."""
        return permutation(self._subject(planned))

    def unmodified(self, planned: PlannedCell) -> Verdict:
        """The inputs after a call."""
        return unmodified(self._subject(planned))

    def concurrency(self, planned: PlannedCell) -> Verdict:
        """Several threads call one session at once."""
        refuse_one_at_a_time(planned)  # before anything is opened for it
        return concurrency(self._subject(planned))

    def history(self, planned: PlannedCell) -> Verdict:
        """The same input before and after others."""
        self._repeats(planned)  # what the determinism check needs of a session that others have not touched
        return history(self._subject(planned))

    def threads(self, planned: PlannedCell) -> Verdict:
        """Fresh sessions with one thread and with several."""
        return threads(self._subject(planned), self._settings.threads)

    def fuzz(self, planned: PlannedCell) -> Verdict:
        """Generated inputs, judged against the source on the same ones."""
        self.fuzzer.need_source(planned.cell.model)  # before anything is opened for it
        if self.parity(planned).outcome is Outcome.FAILED:
            raise NotMeasured("the samples alone show that this is not the model; see the parity check")
        return self.fuzzer.search(self._subject(planned))

    def _subject(self, planned: PlannedCell) -> Subject:
        tolerated = self._tolerances(planned)
        return Subject(planned, self.models, self.cells, self._running(planned), tolerated)

    def timing(self, planned: PlannedCell) -> Timing:
        """Latency, load, first inference and memory, measured in a session of its own."""

        def load() -> Timing:
            from pytest_modelformats.checks.latency import measure

            self._need_sizes(planned)
            artifact = self.cells.artifact(planned)
            feed = self.models.rows(planned.cell.model, 0, 1)
            batch = next(iter(feed.values())).shape[0] if self.models.samples(planned.cell.model).batch_symbol else 1
            if self.cells.is_open("first"):
                self._repeats(planned)  # what the determinism check needs of the session that is closed here
            self.cells.close("first")
            opened = self.cells.session(planned, "fresh")
            paths = write_feed(feed, self._asker.folder("cell") / "in")
            self.pool.settle(self._settings.timeout_s)
            return measure(
                lambda: self._asker.worker(
                    opened.worker,
                    "",
                    "measure",
                    session=opened.number,
                    feed=paths,
                    budget_s=self._settings.time_budget_s,
                    max_samples=2000,
                    threads=self._settings.threads,
                    device=planned.cell.device,
                ),
                opened,
                artifact,
                batch,
                self._sizes(planned),
            )

        return self.cells.once("timing", planned, load)

    def throughput(self, planned: PlannedCell, scenario: Scenario) -> Throughput:
        """What the cell delivers per second in one scenario, in a session of its own."""
        self._need_sizes(planned)
        found = measure_throughput(self._subject(planned), scenario, self._settings)
        return replace(found, sizes=self._sizes(planned))

    def _sizes(self, planned: PlannedCell) -> dict[str, int]:
        """The sizes of the free dimensions by name: what stands beside a figure."""
        return by_name(self.models.sizes(planned.cell.model).dimensions)

    def _need_sizes(self, planned: PlannedCell) -> None:
        """Somebody states the sizes that a figure is measured at; raises NotMeasured where nobody does."""
        why_not = sizes.why_no_latency(self.models.sizes(planned.cell.model))
        if why_not:
            raise NotMeasured(why_not)

    def _repeats(self, planned: PlannedCell) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The outputs for one row, twice in the first session."""
        feed = self.models.rows(planned.cell.model, 0, 1)
        return self.cells.once(
            "repeats", planned, lambda: (self.cells.run(planned, feed), self.cells.run(planned, feed))
        )

    def _examined(self, planned: PlannedCell, verdict: Verdict, asked: Precision) -> Verdict:
        """A fallback to a coarser precision, examined: an error that moved inputs do not change is a fault."""
        model, noise = planned.cell.model, self.models.reference(planned.cell.model).noise
        if not effective_precision.suspects(verdict, asked):
            return verdict
        feed = self.models.rows(model, 0, max(between_runs.BATCHES))
        truth = self.models.evaluated(model, "few", feed, "float64")
        error = effective_precision.errors(self.cells.run(planned, feed), truth)
        rounded = {}
        if effective_precision.ambiguous(verdict):
            for precision in (p for p in effective_precision.ALIKE if p in noise):
                rounded[precision] = effective_precision.errors(
                    self.models.evaluated(model, "few", feed, precision), truth
                )
            verdict = effective_precision.named(verdict, error, rounded, noise, asked)
        ran = effective_precision.suspects(verdict, asked)
        settled = self._settled_by_graph(planned, verdict, ran, feed, truth, error, rounded.get("fp16-weights"))
        if settled.outcome is Outcome.FAILED:
            return settled
        if not any(spec.is_float for spec in self.models.description(model).inputs):
            if ran not in rounded:
                try:
                    rounded[ran] = effective_precision.errors(self.models.evaluated(model, "few", feed, ran), truth)
                except (Unsupported, ConvertError, RunError):
                    return verdict
            verdict = effective_precision.settle_by_place(verdict, ran, error, rounded[ran])
            stated = self.cells.execution(planned, self.models.rows(model, 0, 1))
            if stated_execution.contradiction(verdict.outputs, stated, planned.artifact_precision, noise):
                verdict = effective_precision.settle_by_statement(verdict, ran, error, rounded.get("fp16-weights"))
            return verdict
        other = effective_precision.moved(feed, ran)
        moved = self.models.evaluated(model, f"moved-{ran}", other, "float64")
        again = effective_precision.errors(self.cells.run(planned, other), moved)
        weights = rounded.get("fp16-weights") if ran.startswith("fp16") else None
        return effective_precision.settle(verdict, ran, error, again, weights)

    def _settled_by_graph(
        self,
        planned: PlannedCell,
        verdict: Verdict,
        ran: str,
        feed: Mapping[str, np.ndarray],
        truth: Sequence[np.ndarray],
        error: Sequence[np.ndarray],
        weights: Sequence[np.ndarray] | None,
    ) -> Verdict:
        """A fallback whose error the file makes itself is a fault, unless its weights are all rounded to fp16."""
        graph = self._of_graph(planned, feed, truth, as_written=False)
        if graph is None:
            return verdict
        if ran.startswith("fp16") and weights is not None:
            pairs = zip(graph, weights, strict=True)
            if all(effective_precision.apart(own, known) <= effective_precision.OWN_WEIGHTS for own, known in pairs):
                return verdict
        graph = self._of_graph(planned, feed, truth, as_written=True)
        return verdict if graph is None else effective_precision.settle_by_graph(verdict, ran, error, graph)

    def _of_graph(
        self, planned: PlannedCell, feed: Mapping[str, np.ndarray], truth: Sequence[np.ndarray], *, as_written: bool
    ) -> list[np.ndarray] | None:
        """The errors of an fp32 file's own graph in float64, ``None`` where it cannot be asked or is the source's.

        ``as_written``: through its own casts to narrower types.
        """
        own = not planned.chain and not planned.candidate_path
        if own or PRECISIONS[planned.artifact_precision].mantissa_bits < PRECISIONS["fp32"].mantissa_bits:
            return None
        try:
            (outputs,) = self.cells.graph_in_float64(planned, [feed], as_written=as_written)
        except ModelFormatsError:  # what cannot be asked, or takes too long, decides nothing
            return None
        alike = len(outputs) == len(truth) and all(o.shape == t.shape for o, t in zip(outputs, truth, strict=True))
        return effective_precision.errors(outputs, truth) if alike else None

    def _looked_at(self, planned: PlannedCell, verdict: Verdict, precision: Precision) -> Verdict:
        """A verdict with an unusual error, settled by a second look."""
        model = planned.cell.model
        faint = any(second_look.by_one_element(output, precision) for output in verdict.outputs)
        if not faint and not second_look.wanted(verdict, precision, self.models.description(model).inputs):
            return verdict
        try:
            feeds, reference = self.models.moved(model, precision.yardstick)
        except (Unsupported, ConvertError, RunError):
            return verdict
        noise = reference.noise.get(precision.yardstick)
        if noise is None:
            return verdict
        if faint:
            return second_look.with_more_draws(verdict, noise, precision)
        truths, outputs = alike(reference.truths, [self.cells.run(planned, feed) for feed in feeds])
        usual = self.models.reference(model).noise[precision.yardstick]
        looked = [
            second_look.look([t[i] for t in truths], [o[i] for o in outputs], own, precision, usual[i])
            for i, own in enumerate(noise)
        ]
        return second_look.settle(verdict, looked, precision)

    def _in_part(self, planned: PlannedCell, verdict: Verdict) -> Verdict:
        """The verdict, saying how much of an output was judged of which only a part is known, and if by an estimate."""
        reference = self.models.reference(planned.cell.model)
        parts = [shares(self._output_names(planned), reference.truths)]
        if self._is_estimate(planned):
            parts.append("The truth is an estimate, the source's own fp32 run: unusual rows are not judged by it.")
        said = " ".join(part for part in parts if part)
        what, step, rest = verdict.sentence.partition(" Next: ")
        return replace(verdict, sentence=f"{what} {said}{step}{rest}") if said else verdict

    def _is_estimate(self, planned: PlannedCell) -> bool:
        """Whether the truth is an fp32 run: what it is off by where inputs are unusual nobody knows."""
        return word(self.models.reference(planned.cell.model).methods.get("float64", "")) == ESTIMATED

    def _stressed(self, planned: PlannedCell, verdict: Verdict, precision: Precision) -> Verdict:
        """A verdict that passed, with the stress rows judged too: one more inference of eight rows."""
        model = planned.cell.model
        fixed = self._tolerances(planned)
        unasked = all(output.name in fixed for output in verdict.outputs) or self._is_estimate(planned)
        if not verdict.passed or unasked:
            return verdict
        stressed = self.models.stress_reference(model, precision.yardstick)
        samples = self.models.stress(model)
        if stressed is None or samples is None:
            return verdict
        reference = self.models.reference(model)
        outputs = self.cells.once("stress", planned, lambda: [self.cells.run(planned, f) for f in samples.feeds])
        truths, outputs = alike(stressed.truths, outputs)
        known, _ = alike(reference.truths, reference.truths)
        # An output with a tolerance has it on the samples; of its noise nothing is judged, here neither.
        ordinary = [
            (0.0 if verdict.outputs[index].name in fixed else own.rms, truth_rms([t[index] for t in known]))
            for index, own in enumerate(reference.noise[precision.yardstick])
        ]
        noise = stressed.noise[precision.yardstick]
        judged = judge_stress(verdict, truths, outputs, noise, ordinary, precision)
        if judged.passed:
            return judged
        outputs = near_ties.broken(self.models, model, samples.feeds, (truths, outputs), noise, precision)
        judged = judge_stress(verdict, truths, outputs, noise, ordinary, precision)
        return unusual_rows.settled(
            self.cells, self.models, planned, verdict, judged, (truths, outputs), noise, ordinary, precision
        )

    def _at_further_sizes(self, planned: PlannedCell, verdict: Verdict, precision: Precision) -> Verdict:
        """A verdict that passed, with other sizes judged too where nothing states which ones count."""
        precision, tolerated = _as_looked_at(precision, verdict), self._tolerances(planned)
        subject = Subject(planned, self.models, self.cells, precision, tolerated)
        return further_sizes.judged(subject, verdict, self.at_size)

    def _running(self, planned: PlannedCell) -> Precision:
        """The precision that runs: the asked one, or after a fallback the one that was measured."""
        verdict = self.parity(planned)
        if verdict.outcome is not Outcome.FALLBACK:
            return _as_looked_at(PRECISIONS[planned.cell.precision], verdict)
        ran = {o.effective_precision for o in verdict.outputs if o.outcome is Outcome.FALLBACK}
        # None, where it is the device that was another one.
        asked = PRECISIONS[planned.cell.precision]
        return max((PRECISIONS[name] for name in ran), key=lambda p: -p.mantissa_bits, default=asked)

    def check_tolerances(self, planned: PlannedCell) -> None:
        """The tolerances of a cell name outputs of its model; raises ConfigurationError."""
        check_outputs(self._settings, planned.cell.id, self._output_names(planned), self.models.output_names)

    def _tolerances(self, planned: PlannedCell) -> dict[str, Tolerance]:
        return tolerances.for_cell(self._settings.tolerances, planned.cell.id, self._output_names(planned))

    def _output_names(self, planned: PlannedCell) -> list[str]:
        return [spec.name for spec in self.models.description(planned.cell.model).outputs]


def _as_looked_at(precision: Precision, verdict: Verdict) -> Precision:
    """The precision with the limit that a verdict was settled by: what a second look found to be rounding is so again.

    It is so in other batches and at other sizes too.
    """
    wide = verdict.passed and any(o.systematic_ratio is not None for o in verdict.outputs)
    return replace(precision, limit=second_look.FURTHEST * precision.limit) if wide else precision
