"""Executed by execnet as text in a fresh worker, before anything of ours can be imported.

``channel`` is given by execnet. Becomes its own process group (so that it can be killed
with everything it started), sends what it prints to the parent's pipe, limits its memory,
and puts the shipped source in front of ``sys.path`` where the package is not installed.
"""

import os
import sys

setup = channel.receive()  # type: ignore[name-defined]  # noqa: F821 - execnet's name
os.setsid()
log = os.open(setup["log"], os.O_WRONLY)
os.dup2(log, 1)
os.dup2(log, 2)
os.close(log)
try:
    import resource

    if setup["memory_bytes"]:
        # RLIMIT_DATA counts what is really writable and private: torch's reserved address space does not matter.
        resource.setrlimit(resource.RLIMIT_DATA, (setup["memory_bytes"], setup["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/oom_score_adj", "w") as handle:  # noqa: PTH123 - runs before pathlib is worth its import
        handle.write("1000")
except (ImportError, OSError, ValueError):
    pass  # a platform without these limits is served without them
if setup["shipped"]:
    sys.path[:] = [p for p in sys.path if p]  # the folder that pytest was started in is ours, not this interpreter's
sys.path[:0] = setup["path"]
sys.dont_write_bytecode = bool(setup["shipped"])
# `import openvino` reports its use to Intel from a thread that forks: beside the samples of a measurement, and unasked.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # openvino then takes its own stub

from pytest_modelformats.run.workers import server  # noqa: E402 - only now importable

channel.send({"pid": os.getpid(), "python": sys.version.split()[0]})  # type: ignore[name-defined]  # noqa: F821
server.serve(channel)  # type: ignore[name-defined]  # noqa: F821
