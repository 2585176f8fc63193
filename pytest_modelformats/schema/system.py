"""Formats, converters and backends, as they declare themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write a model down, as one file or folder.

    ``module`` is the import path of the format's file (see ``contract.FormatModule``).
    ``suffix`` is what an artifact of it is called; "" means that the source is the artifact.
    ``named_inputs``/``named_outputs``: whether the format holds names that must survive.
    ``as_written``: whether ``evaluate`` knows ``contract.AS_WRITTEN``.
    """

    name: str
    title: str
    module: str
    suffix: str
    precisions: tuple[str, ...]
    requires: tuple[str, ...] = ()
    install: str = ""
    named_inputs: bool = False
    named_outputs: bool = False
    as_written: bool = False


@dataclass(frozen=True, slots=True)
class Converter:
    """One edge of the conversion graph: (source format, source precision) -> (target format, target precision).

    ``precisions`` maps the precision of the input artifact to those it can be turned into.
    ``route`` names this way of reaching ``target``; the ``default`` ones make up the plan,
    the others are asked for as ``<target>.<route>``. ``entry`` is ``module:function`` of a
    ``contract.Convert``. ``libraries`` are the distributions whose versions enter the cache key, beside the code of the
    entry's module and what that imports of its own package; ``version`` is raised for what neither of them shows.
    """

    name: str
    source: str
    target: str
    precisions: Mapping[str, tuple[str, ...]]
    entry: str
    route: str
    default: bool = True
    requires: tuple[str, ...] = ()
    install: str = ""
    libraries: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    version: int = 1


@dataclass(frozen=True, slots=True)
class Backend:
    """A runtime that opens artifacts and runs them.

    ``precisions`` maps (format, precision of the artifact) to the precisions it can be run
    at: mostly the artifact's own, for OpenVINO also those of the precision hint.
    ``worker`` names the process it lives in. ``needs_cpu_flags`` maps a precision to CPU
    flags of which one must be present for it to be more than an emulation on ``cpu``.
    ``entry`` is ``module:function`` of a ``contract.OpenSession``.
    ``verified`` says on what hardware a device of it was seen working ("" = not verified).
    ``precision_devices`` names the devices of a precision that not every device has (TF32
    is an arithmetic of NVIDIA's tensor cores); where a precision is absent, all have it.
    ``one_call_at_a_time`` says why several threads may not call one session at once ("" = they may).
    """

    name: str
    title: str
    worker: str
    precisions: Mapping[tuple[str, str], tuple[str, ...]]
    devices: tuple[str, ...]
    entry: str
    requires: tuple[str, ...] = ()
    install: str = ""
    libraries: tuple[str, ...] = ()
    needs_cpu_flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    verified: Mapping[str, str] = field(default_factory=dict)
    opt_in_precisions: tuple[str, ...] = ()
    precision_devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    one_call_at_a_time: str = ""

    def runs_on(self, precision: str) -> tuple[str, ...]:
        """The devices on which it has a precision."""
        return tuple(d for d in self.devices if d in self.precision_devices.get(precision, self.devices))
