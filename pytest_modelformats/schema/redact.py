"""Passwords taken out of what is shown or recorded: a database's address may carry one.

Standard library only.
"""

from __future__ import annotations

import re

# Greedy up to the last "@" of the word: a password with an "@" or "/" that was not escaped is still one.
_IN_ADDRESS = re.compile(r"(?P<start>[A-Za-z][\w+.-]*://[^:/@\s]*):\S*@")
_IN_QUERY = re.compile(r"(?P<start>password=)[^&\s'\"]*", re.IGNORECASE)
HIDDEN = "***"


def redacted(text: str) -> str:
    """The text with ``***`` for the password of every address in it."""
    return _IN_QUERY.sub(rf"\g<start>{HIDDEN}", _IN_ADDRESS.sub(rf"\g<start>:{HIDDEN}@", text))
