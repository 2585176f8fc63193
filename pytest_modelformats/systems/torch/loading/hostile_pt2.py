"""A ``.pt2`` file whose loading would run code that it carries is found before it is loaded.

``torch.export.load`` evaluates shape expressions with sympy, looks operators up by dotted
name below ``torch``, unpickles objects and opens compiled libraries: each of them can be
made to run code. Here the file's own JSON is held against what exported programs contain.

Source: torch/_export/serde/serialize.py and torch/export/pt2_archive/_package.py of torch 2.13.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import SourceError, TrustError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TARGET = re.compile(
    r"torch\.ops\.[\w.]+|_operator\.[a-z]\w*|math\.[a-z]\w*|torch\._?sym_\w+"
    r"|torch\.amp\.autocast_mode\._(enter|exit)_autocast|torch\._C\._set_grad_enabled"
)
_NAME = re.compile(r"[\w.:/<>#@ ,-]*")
_CALL = re.compile(r"[A-Z]\w*|floor|ceiling")
_FREE_TEXT = frozenset({"metadata", "as_string", "as_strings", "torch_version", "guards_code"})
_TREE_TYPES = frozenset({"builtins.dict", "builtins.list", "builtins.tuple", "collections.OrderedDict", None})
_TREES = frozenset({"in_spec", "out_spec"})
_EXPRESSION_NODES = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp, ast.BoolOp,
    ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_JSON_LIMIT_BYTES = 256 << 20


def refuse_code(path: Path) -> None:
    """Return where the program holds nothing but a graph of known operators and tensors.

    Raises: TrustError naming the first thing that is more than that; SourceError for a damaged file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            reason = next(_reasons(archive), None)
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, RecursionError) as error:
        msg = f"'{path.name}' is a damaged .pt2 file ({error}); export and save it again"
        raise SourceError(msg) from error
    if reason is not None:
        msg = f"'{path.name}' holds {reason} whose loading could run code; add --mf-trust to allow it for this file"
        raise TrustError(msg)


def _reasons(archive: zipfile.ZipFile) -> Iterator[str]:
    for info in archive.infolist():
        record = info.filename.partition("/")[2] or info.filename
        if record.startswith("data/aotinductor/") or record.endswith(".so"):
            yield f"a compiled library ({record})"
        if "/constants/" in record and re.search(r"/(custom_obj|opaque_obj)\w*$", record):
            yield f"a pickled object ({record})"
        if record.endswith(".json"):
            if info.file_size > _JSON_LIMIT_BYTES:
                msg = f"its {record} is larger than {_JSON_LIMIT_BYTES >> 20} MB"
                raise ValueError(msg)
            yield from _in_json(json.loads(archive.read(info)), "")


def _in_json(value: Any, key: str) -> Iterator[str]:
    """Yield what is suspicious in a value that stands under ``key``."""
    if key in _FREE_TEXT:
        return
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _in_json(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _in_json(item, key)
    elif isinstance(value, str) and not _harmless(value, key):
        yield f"the {key} '{value[:60]}'"


def _harmless(text: str, key: str) -> bool:
    if key == "target":
        return _TARGET.fullmatch(text) is not None and "__" not in text.removeprefix("torch.ops.")
    if key == "expr_str":
        return _is_arithmetic(text)
    if key in _TREES:
        return _is_plain_tree(text)
    return _NAME.fullmatch(text) is not None


def _is_arithmetic(text: str) -> bool:
    """Whether a shape expression is numbers, symbols and sympy's own functions of them."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except SyntaxError:
        return False
    for node in nodes:
        if not isinstance(node, _EXPRESSION_NODES):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and _CALL.fullmatch(node.func.id)):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier():
            return False
    return True


def _is_plain_tree(text: str) -> bool:
    """Whether a nesting of inputs or outputs is of dicts, lists and tuples only, none of which imports a module."""
    if not text:
        return True
    pending = [json.loads(text)[1]]
    while pending:
        tree = pending.pop()
        if tree["type"] not in _TREE_TYPES or "__enum__" in str(tree["context"]):
            return False
        pending.extend(tree["children_spec"])
    return True
