"""Computed once: the result, or the error that it ended in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pytest_modelformats.errors import ModelFormatsError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


def remember(memo: dict[Any, Any], key: Any, make: Callable[[], _T]) -> _T:
    """The kept result, or the kept error raised again: what failed is not tried again by the next check."""
    if key not in memo:
        try:
            memo[key] = make()
        except ModelFormatsError as error:
            memo[key] = error
    found = memo[key]
    if isinstance(found, ModelFormatsError):
        raise found
    return found  # type: ignore[no-any-return]
