"""The facts that the documentation states, written from the code: ``python tools/documentation.py``.

A document marks where a fact goes: ``<!-- generated: options -->`` … ``<!-- end -->``. What
stands between the two is replaced. The tests hold that every committed document is up to date.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelformats.errors import ConfigurationError, ModelFormatsError
from pytest_modelformats.schema import package
from pytest_modelformats.settings.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_modelformats.settings.options import Option

EXAMPLE = Path("reports/example/results.jsonl")
CONFIGURATION = Path("examples/modelformats.toml")
BENCHMARK = Path("docs/verdict-benchmark.md")
_BLOCK = re.compile(r"(?P<start><!-- generated: (?P<name>[a-z]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def options_table() -> str:
    """Every ``--mf-*`` option with what it does and its default, as a Markdown table."""
    lines = ["| option | what it does | default |", "|---|---|---|"]
    for option in OPTIONS:
        default = option.default_text or str(option.default)
        lines.append(f"| `{_written(option)}` | {_text(option.help)} | {_text(default)} |")
    return "\n".join(lines) + "\n"


def _written(option: Option) -> str:
    value = option.metavar or "|".join(option.choices)
    return f"{option.flag} {value}".rstrip().replace("|", "\\|")


def _text(text: str) -> str:
    """``text`` in a table's cell, with nothing in it that Markdown would take for a tag or a column."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def support_table() -> str:
    """Which precisions of which format every backend runs on which device."""
    from pytest_modelformats.cli import doctor

    return doctor.support_table()


def limits_table() -> str:
    """The largest noise ratio that passes, by precision."""
    from pytest_modelformats.compare.floating import POINT_LIMIT
    from pytest_modelformats.schema import PRECISIONS

    lines = ["| precision | judged by the noise of | r at most | worst element at most |", "|---|---|--:|--:|"]
    for precision in PRECISIONS.values():
        point = POINT_LIMIT[precision.yardstick]
        lines.append(f"| {precision.name} | {precision.yardstick} | {precision.limit:g} | {point:g} |")
    return "\n".join(lines) + "\n"


def steps_table() -> str:
    """What to do after every outcome and kind, as the sentences say it."""
    from pytest_modelformats.compare.next_step import STEPS

    lines = ["| outcome | in the check | next step |", "|---|---|---|"]
    for (outcome, kind, check), step in STEPS.items():
        word = f"{outcome.value} ({kind.value})" if kind else outcome.value
        lines.append(f"| `{word}` | {check or 'any'} | {_text(step[0].upper() + step[1:])} |")
    return "\n".join(lines) + "\n"


def suites_table() -> str:
    """The shipped suites with the law that each holds a cell to."""
    from pytest_modelformats.session.suites import OPT_IN, suites

    lines = ["| suite | what it asserts |", "|---|---|"]
    for name, path in suites().items():
        laws = [law for function, law in _functions(path) if function.startswith("test_")]
        asked = f" Runs only where {_either(OPT_IN[name])} asks for it." if name in OPT_IN else ""
        lines.append(f"| `{name}` | {' '.join(laws)}{asked} |")
    return "\n".join(lines) + "\n"


def _either(options: Sequence[str]) -> str:
    *first, last = (f"`{option}`" for option in options)
    return f"{', '.join(first)} or {last}" if first else last


def fixtures_table() -> str:
    """The fixtures that a test of the user's own may take."""
    lines = ["| fixture | what a test gets |", "|---|---|"]
    found = _functions(package.folder() / "plugin.py")
    lines += [f"| `{name}` | {_text(law)} |" for name, law in found if name.startswith("mf_")]
    return "\n".join(lines) + "\n"


def _functions(path: Path) -> list[tuple[str, str]]:
    """The functions of a file with the first line of their docstrings; nothing is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return [(node.name, (ast.get_docstring(node) or "").partition("\n")[0]) for node in functions]


def finding(root: Path) -> str:
    """What failed in the example report, as the report itself says it."""
    from pytest_modelformats.record import read as lines
    from pytest_modelformats.report import markdown

    text = markdown.render(lines.read(root / EXAMPLE))
    _, _, section = text.partition("### Failures\n\n")
    return (section.partition("\n\n")[0] or "Nothing failed in the example report.") + "\n"


def configuration(root: Path) -> str:
    """The example configuration file."""
    return f"```toml\n{(root / CONFIGURATION).read_text(encoding='utf-8')}```\n"


def benchmark(root: Path) -> str:
    """The verdict and the rules that others use, on the same faults: when, where, and the table."""
    text = (root / BENCHMARK).read_text(encoding="utf-8")
    where = " ".join(text.partition("\n\n2")[2].partition(". Python")[0].split())
    table = text.partition("## Rule by rule\n\n")[2].partition("\n\n")[0]
    return f"{table}\n\n2{where}; how it was counted: [{BENCHMARK.as_posix()}]({BENCHMARK.as_posix()}).\n"


def blocks(root: Path) -> dict[str, Callable[[], str]]:
    """How each marked block is written; ``root`` is the checkout."""
    return {
        "options": options_table,
        "support": support_table,
        "limits": limits_table,
        "steps": steps_table,
        "suites": suites_table,
        "fixtures": fixtures_table,
        "finding": lambda: finding(root),
        "configuration": lambda: configuration(root),
        "benchmark": lambda: benchmark(root),
    }


def rewrite(text: str, root: Path) -> str:
    """The document with every marked block as the code has it now.

    Raises: ConfigurationError for a block of an unknown name, or one that does not end.
    """
    known = blocks(root)
    if text.count("<!-- generated:") != len(_BLOCK.findall(text)):
        msg = "a '<!-- generated: name -->' has no '<!-- end -->' after it; close the block"
        raise ConfigurationError(msg)

    def block(match: re.Match[str]) -> str:
        if match["name"] not in known:
            msg = f"there is no generated block '{match['name']}'; known are {', '.join(sorted(known))}"
            raise ConfigurationError(msg)
        return f"{match['start']}{known[match['name']]()}{match['end']}"

    return _BLOCK.sub(block, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the documents, or with ``--check`` only say which are out of date (status 1)."""
    parser = argparse.ArgumentParser(prog="python tools/documentation.py", description=main.__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", nargs="+", type=Path, metavar="FILE", help="rewrite the generated blocks of FILE")
    action.add_argument("--check", nargs="+", type=Path, metavar="FILE", help="fail where FILE is out of date")
    chosen = parser.parse_args(arguments)
    # The examples that are quoted lie in the checkout, beside the package.
    root = Path(__file__).resolve().parent.parent
    stale = []
    for path in chosen.write or chosen.check:
        before = path.read_text(encoding="utf-8")
        after = rewrite(before, root)
        if before != after and chosen.write:
            path.write_text(after, encoding="utf-8")
        elif before != after:
            stale.append(str(path))
    if stale:
        names = " ".join(stale)
        sys.stderr.write(f"out of date: {names}; run python tools/documentation.py --write {names}\n")
    return bool(stale)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ModelFormatsError as error:
        sys.exit(str(error))
