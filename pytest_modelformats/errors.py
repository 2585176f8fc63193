"""What can go wrong, step by step, and what each step raises.

======================  =====================================================================
step                    raises
======================  =====================================================================
options, configuration  :class:`ConfigurationError` (pytest shows it as a usage error, exit 4)
source                  :class:`SourceError`; :class:`TrustError` where loading would run code
plan                    :class:`ConfigurationError` (unknown name, ambiguous conversion)
convert                 :class:`ConvertError`; :class:`Unsupported` names the operator or feature
cache                   :class:`CacheError` (folder not writable, disk full)
run, measure            :class:`Unsupported`, :class:`MissingDependency`, :class:`NoDevice`,
                        :class:`RunError` (the runtime refused the inputs or raised),
                        :class:`NotMeasured` (timing beside other work)
compare                 :class:`Undecidable` (a source that gives other outputs every time)
environments            :class:`EnvironmentUnavailable` (offline, no such version)
workers                 :class:`WorkerCrashed`, :class:`WorkerTimeout`, :class:`OutOfMemory`
======================  =====================================================================

Every message is one sentence or two: what, where, what to do next. ``outcome`` is the
value of :class:`pytest_modelformats.schema.Outcome` that a cell ends in when the error
reaches its border. Errors cross the process border as (class name, message).
"""

from __future__ import annotations


class ModelFormatsError(Exception):
    """Any error of this package that a user is meant to read."""

    outcome = "convert-error"


class ConfigurationError(ModelFormatsError):
    """An option or a configuration key has a value that nothing can be done with."""


class EnvironmentUnavailable(ConfigurationError):
    """An environment with other versions cannot be made or used; its cells end so, and not the run."""

    outcome = "missing-dependency"


class SourceError(ModelFormatsError):
    """The file is not a model that can be read, or something needed to use it is missing."""


class TrustError(SourceError):
    """Loading the file would execute code that it carries, and nobody has allowed that."""


class ConvertError(ModelFormatsError):
    """A converter, or the checker of the format it wrote, refused or raised."""


class CacheError(ModelFormatsError):
    """The cache folder cannot be used."""


class Unsupported(ModelFormatsError):
    """The format or runtime does not have the operator, precision or feature; the message names it."""

    outcome = "unsupported"


class MissingDependency(ModelFormatsError):
    """A library is not installed; the message carries the install line."""

    outcome = "missing-dependency"


class NoDevice(ModelFormatsError):
    """The device that the cell asks for is not on this machine."""

    outcome = "no-device"


class RunError(ModelFormatsError):
    """The runtime could not open the artifact or raised while running it."""

    outcome = "failed"


class NotMeasured(ModelFormatsError):
    """A measurement was not made, because here it would not mean anything."""

    outcome = "not-measured"


class Undecidable(ModelFormatsError):
    """The source itself leaves nothing to judge by; the message says why."""

    outcome = "inconclusive"


class WorkerCrashed(ModelFormatsError):
    """The worker process died; the message names the signal or the exit status."""

    outcome = "crashed"


class WorkerTimeout(ModelFormatsError):
    """A request was not answered within its time-out; the worker's process group was killed."""

    outcome = "timeout"


class OutOfMemory(ModelFormatsError):
    """The worker reached its memory limit, or was killed by the kernel for want of memory."""

    outcome = "out-of-memory"


BY_NAME: dict[str, type[ModelFormatsError]] = {
    cls.__name__: cls
    for cls in (
        ModelFormatsError,
        ConfigurationError,
        EnvironmentUnavailable,
        SourceError,
        TrustError,
        ConvertError,
        CacheError,
        Unsupported,
        MissingDependency,
        NoDevice,
        RunError,
        NotMeasured,
        Undecidable,
        WorkerCrashed,
        WorkerTimeout,
        OutOfMemory,
    )
}
