"""Makes texts from outside safe to print: what moves a terminal's cursor, changes its title or reverses a line is escaped."""

from __future__ import annotations

import re

LINE_BREAK = "\n"
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, kept: str = "") -> str:
    r"""Escapes control characters, line separators, overrides of the direction of writing, and halves of surrogate pairs.

    Args:
        text: any text.
        kept: characters that stay, such as the line breaks of a message of several lines.

    Example:
        >>> printable("red \x1b[31m mug\n")
        'red \\x1b[31m mug\\n'
    """
    return _CONTROLS.sub(lambda match: match[0] if match[0] in kept else ascii(match[0])[1:-1], text)
