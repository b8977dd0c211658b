"""Brings the project's docstrings into the form in which mkdocstrings reads them."""

from __future__ import annotations

import re

import griffe


class ProjectDocstrings(griffe.Extension):
    """An `Example:` of Python prompts is a section of code, and `a, b: …` among the arguments stands for both of them."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring:
            text = re.sub(r"^(\s*)Example:\n", r"\1Examples:\n", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"^( {4})(\w+(?:, \w+)+): (.*(?:\n {8,}.*)*)", _for_each, text, flags=re.MULTILINE)


def _for_each(entry: re.Match) -> str:
    names = entry.group(2).split(", ")
    rest = [f"{entry.group(1)}{name}: as `{names[0]}`." for name in names[1:]]
    return "\n".join([f"{entry.group(1)}{names[0]}: {entry.group(3)}", *rest])
