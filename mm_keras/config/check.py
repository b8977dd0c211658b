"""Checks bound values against the annotations of their parameters: pydantic compares types and ranges, we word the problem."""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import annotated_types
import pydantic

_PLAIN = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "True or False", type(None): "None"}
_LIMITS = {
    annotated_types.Ge: "at least",
    annotated_types.Gt: "above",
    annotated_types.Le: "at most",
    annotated_types.Lt: "below",
}
_UNIONS = (typing.Union, types.UnionType)
_STRICT = pydantic.ConfigDict(strict=True, allow_inf_nan=False)


def annotations_of(function: Callable) -> dict[str, Any]:
    """Maps each parameter to its annotation with its range, and "return" to that of the result.

    A parameter without an annotation takes any value.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    return dict.fromkeys(inspect.signature(function).parameters, Any) | hints


def problem_with(value: Any, annotation: Any) -> str | None:
    """Says what is wrong with a value that does not fit its parameter.

    Args:
        value: the value that the function would receive.
        annotation: the parameter's annotation.

    Returns:
        what is expected, what was received, and how to write it where that can be guessed; None if the value fits.

    Example:
        >>> problem_with("3", Annotated[int, annotated_types.Ge(1)])
        "expected a whole number, at least 1. Received: '3'; write the number without quotes"
    """
    try:
        pydantic.TypeAdapter(_checkable(annotation), config=_STRICT).validate_python(value)
    except pydantic.ValidationError:
        return f"expected {describe(annotation)}. Received: {_shown(value)}{_advice(value, annotation)}"
    return None


def problem_with_result(returned: Any, annotation: Any, reference: str) -> str | None:
    """Says what is wrong with a bound call `@function()` whose return annotation does not fit the parameter; None if it fits.

    The function is not called. A return annotation that is no class, such as a union, is taken to fit.
    """
    if Any in (returned, annotation) or not isinstance(returned, type):
        return None
    members = _members(annotation)
    if any(member is Any or (isinstance(member, type) and issubclass(returned, member)) for member in members):
        return None
    advice = f"; write {reference.removesuffix('()')} to bind the function itself" if _takes_function(annotation) else ""
    return f"expected {describe(annotation)}. Received: the result of {reference}, {_named(returned)}{advice}"


def describe(annotation: Any) -> str:
    """Describes an annotation in plain words: Annotated[int, Ge(1)] -> "a whole number, at least 1"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return "anything"
    if origin is Annotated:
        base, *limits = arguments
        length = next((limit.min_length for limit in limits if isinstance(limit, annotated_types.Len)), None)
        words = describe(base).replace("a list of", f"a list of {length}") if length else describe(base)
        return ", ".join([words, *_limits(limits)])
    if origin in _UNIONS:
        return ", or ".join(dict.fromkeys(describe(member) for member in arguments))
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is collections.abc.Callable or annotation in (Callable, collections.abc.Callable):
        return "a function, written @name"
    if _is_mapping(origin):
        return f"a dict from {_plural(arguments[0])} to {_plural(arguments[1])}" if arguments else "a dict"
    if _is_sequence(origin):
        return f"a list of {_plural(arguments[0])}" if arguments else "a list"
    return _PLAIN.get(annotation) or _named(annotation)


def _limits(limits: collections.abc.Iterable[Any]) -> list[str]:
    """[Ge(0), Lt(1)] -> ["at least 0", "below 1"]."""
    kinds = ((limit, kind, word) for limit in limits for kind, word in _LIMITS.items() if isinstance(limit, kind))
    return [f"{word} {getattr(limit, kind.__name__.lower())}" for limit, kind, word in kinds]


def _plural(annotation: Any) -> str:
    plain = {int: "whole numbers", float: "numbers", str: "texts in quotes"}
    base, *limits = typing.get_args(annotation) if typing.get_origin(annotation) is Annotated else (annotation,)
    words = plain.get(base) or describe(base)
    return f"{words} (each {' and '.join(_limits(limits))})" if limits else words


def _named(annotation: Any) -> str:
    name = getattr(annotation, "__name__", str(annotation))
    return f"a{'n' if name[:1] in 'AEIOU' else ''} {name}"


def _shown(value: Any) -> str:
    text = f"the function {value.__name__}" if callable(value) and hasattr(value, "__name__") else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _advice(value: Any, annotation: Any) -> str:
    members = _members(annotation)
    if isinstance(value, str):
        if any(_is_sequence(typing.get_origin(member)) and typing.get_args(member)[0] is str for member in members):
            return f"; a list of one text has a comma: ({value!r},)"
        choices = [choice for member in members if typing.get_origin(member) is Literal for choice in typing.get_args(member)]
        if near := difflib.get_close_matches(value, [choice for choice in choices if isinstance(choice, str)], 1):
            return f"; did you mean {near[0]!r}?"
        if any(member in (int, float) for member in members) and _is_number(value):
            return "; write the number without quotes"
        if _takes_function(annotation):
            return f"; write the function's name behind an @: @{value}" if value.isidentifier() else "; write it as @name"
    if isinstance(value, int | float) and any(_is_sequence(typing.get_origin(member)) for member in members):
        return f"; a list is written ({value},) or ({value}, {value})"
    if isinstance(value, float) and int in members and value.is_integer():
        return f"; write {int(value)}"
    if callable(value) and not _takes_function(annotation):
        return "; write @name() for the result of calling it"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _members(annotation: Any) -> list[Any]:
    """Returns the alternatives of a union, without their ranges; of another annotation, that annotation alone."""
    if typing.get_origin(annotation) is Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in _UNIONS:
        return [member for argument in typing.get_args(annotation) for member in _members(argument)]
    return [annotation]


def _takes_function(annotation: Any) -> bool:
    return any(typing.get_origin(member) is collections.abc.Callable or member is Callable for member in _members(annotation))


def _is_sequence(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, collections.abc.Sequence)


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, collections.abc.Mapping)


def _checkable(annotation: Any) -> Any:
    """Rewrites an annotation for pydantic: a value of any class of ours or of Keras is only checked to be an instance."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return Annotated[(_checkable(arguments[0]), *arguments[1:])]
    if origin in _UNIONS:
        return typing.Union[tuple(map(_checkable, arguments))]  # noqa: UP007  of a tuple there is no other way
    if origin is collections.abc.Callable:
        return Callable
    if _is_sequence(origin):
        return collections.abc.Sequence[_checkable(arguments[0])]  # a list where a tuple is annotated is fine
    if _is_mapping(origin):
        return collections.abc.Mapping[tuple(map(_checkable, arguments))]
    if isinstance(annotation, type) and annotation not in _PLAIN:
        return pydantic.InstanceOf[annotation]
    return annotation
