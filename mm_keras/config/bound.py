"""A function together with the values that a config binds."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any


class Call:
    """The value `@function()` of a config: whenever the function that it is bound to is called, this one is called first."""

    def __init__(self, function: Callable):
        self.function = function


class Bound:
    """A callable that calls a function with its bound values; arguments of the call win over them.

    Its signature has the bound values as defaults. If the function raises a ValueError or TypeError whose message names a
    bound parameter, the error gets a note that says where that parameter was bound.

    Args:
        function: the function to call.
        values: maps parameters to their bound values, which may contain `Call` objects.
        places: maps the same parameters to the bindings, with file and line.
    """

    def __init__(self, function: Callable, values: Mapping[str, Any], places: Mapping[str, str]):
        functools.update_wrapper(self, function)
        self._function, self._values, self._places = function, values, places
        parameters = inspect.signature(function).parameters
        self._signature = inspect.signature(function)
        self.__signature__ = self._signature.replace(
            parameters=[
                parameter.replace(default=values[name], kind=inspect.Parameter.KEYWORD_ONLY) if name in values else parameter
                for name, parameter in sorted(parameters.items(), key=lambda item: item[0] in values)
            ]
        )

    def __call__(self, *arguments, **named):
        call_arguments = self._signature.bind_partial(*arguments, **named).arguments
        bound = {name: _called(value) for name, value in self._values.items() if name not in call_arguments}
        try:
            return self._function(*arguments, **named, **bound)
        except (ValueError, TypeError) as error:
            notes = getattr(error, "__notes__", ())
            for name in bound:
                note = f"bound by {self._places[name]}"
                if re.search(rf"\b{name}\b", str(error)) and note not in notes:
                    error.add_note(note)
            raise


def _called(value: Any) -> Any:
    if isinstance(value, Call):
        return value.function()
    if isinstance(value, dict):
        return {_called(key): _called(item) for key, item in value.items()}
    return type(value)(map(_called, value)) if isinstance(value, list | tuple) else value
