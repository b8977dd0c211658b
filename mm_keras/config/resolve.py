"""Resolves the bindings of a config: finds what is wrong with them, and binds their values to the functions."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mm_keras.config.bound import Bound, Call
from mm_keras.config.check import annotations_of, problem_with, problem_with_result
from mm_keras.config.functions import configurable_functions
from mm_keras.config.parse import COMMAND_LINE, REQUIRED, Binding, Macro, Reference

ROOT = "train_and_evaluate"
# Parameters that belong to one call, not to a config.
_OF_A_CALL = ("config", "resume", "overwrite", "dry_run", "later_splits", "later_baselines")


class Resolver:
    """Finds the problems of a config's bindings, and the functions and values that they result in.

    Args:
        bindings: in the order in which they are read; of those with one key, the last one wins.
    """

    def __init__(self, bindings: Sequence[Binding]):
        self._bindings = {binding.key: binding for binding in bindings}
        self._replaced = [binding for binding in bindings if self._bindings[binding.key] is not binding]
        self._known = configurable_functions()
        self._functions: dict[str, Bound | Callable] = {}

    def unknown_names(self) -> Iterator[str]:
        """Yields a message for each function, parameter or reference that does not exist."""
        for binding in self._bindings.values():
            if binding.parameter and binding.function not in self._known:
                yield f"{binding.where}: there is no function {binding.function!r}{self._nearest(binding.function)}"
            elif binding.parameter:
                parameters = inspect.signature(self._known[binding.function]).parameters
                if binding.parameter not in parameters:
                    near = difflib.get_close_matches(binding.parameter, parameters, 1)
                    yield (
                        f"{binding.where}: {binding.function} has no parameter {binding.parameter!r}"
                        + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(parameters)}")
                    )
            for reference in _references(binding.value):
                if isinstance(reference, Reference) and reference.function not in self._known:
                    yield f"{binding.where}: there is no function {reference}{self._nearest(reference.function)}"

    def _nearest(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._known, 1)
        return (f"; did you mean {near[0]}?" if near else "") + f"\n  functions: {', '.join(self._known)}"

    def circles(self) -> Iterator[str]:
        """Yields a message for each function or macro that refers back to itself."""
        finished: set[str] = set()
        for binding in self._bindings.values():
            yield from self._circles_from(binding.owner, (), finished)

    def _circles_from(self, owner: Reference | Macro, path: tuple[str, ...], finished: set[str]) -> Iterator[str]:
        name = str(owner)
        if name in finished:
            return
        for binding in self._of(owner):
            for reference in _references(binding.value):
                target = _inside(reference, binding.scope)
                target = dataclasses.replace(target, is_call=False) if isinstance(target, Reference) else target
                if str(target) in (names := (*path, name)):
                    circle = " -> ".join((*names[names.index(str(target)) :], str(target)))
                    yield f"{binding.where}: {binding.key} = {_written(binding.value)}: it refers back to itself, {circle}"
                else:
                    yield from self._circles_from(target, names, finished)
        finished.add(name)

    def follow(self, complete: bool) -> Iterator[str]:
        """Follows all references from the root, and yields a message for whatever is required, not given, or not used.

        Args:
            complete: whether there is a config that starts from the root; overrides alone may be of any function.
        """
        if not complete:
            return
        used, macros = set(), set()
        for binding in self._bindings_behind([Reference("", ROOT, False)]):
            if binding.key in used:
                continue
            used.add(binding.key)
            for reference in _references(binding.value):
                if str(reference) == f"%{REQUIRED}":
                    yield f"{binding.key} is required; give it with {COMMAND_LINE}='{binding.key}=…'"
                elif isinstance(reference, Macro):
                    macros.add(reference.name)
        for macro in sorted(macros - set(self._bindings)):
            yield f"%{macro} is used and not given; give it with {COMMAND_LINE}='{macro}=…'"
        # Bindings of a replaced part are no mistake: a config that includes another one may choose another tower.
        targets = [_inside(reference, binding.scope) for binding in self._replaced for reference in _references(binding.value)]
        used |= {binding.key for binding in self._bindings_behind(targets)}
        for key, binding in self._bindings.items():
            if key not in used:
                reference = f"@{key.rpartition('.')[0]}" if binding.parameter else f"%{key}"
                yield f"{key} is bound, but nothing uses it; refer to {reference} or delete the line"

    def _bindings_behind(self, targets: Iterable[Reference | Macro]) -> Iterator[Binding]:
        """The bindings of some functions and macros, and of all that they refer to."""
        waiting, seen = list(targets), set()
        while waiting:
            target = waiting.pop()
            if str(target) in seen:
                continue
            seen.add(str(target))
            for binding in self._of(target):
                yield binding
                waiting += [_inside(reference, binding.scope) for reference in _references(binding.value)]

    def misfits(self) -> Iterator[str]:
        """Yields a message for each value that does not fit its parameter."""
        for binding in self._bindings.values():
            if not binding.parameter:
                continue
            annotation = annotations_of(self._known[binding.function])[binding.parameter]
            value = self.value(binding.value, binding.scope)
            source = self._source(binding)
            if isinstance(value, Call):
                returned = annotations_of(self._known[source.value.function]).get("return", Any)
                problem = problem_with_result(returned, annotation, str(source.value))
            else:
                problem = None if _is_unknown(value) else problem_with(value, annotation)
            if problem:
                note = "" if source is binding else f" ({source.key} is given in {source.where})"
                yield f"{binding.where}: {binding.key} = {_written(binding.value)}: {problem}{note}"

    def _source(self, binding: Binding) -> Binding:
        """The binding that gives the value itself, if this one refers to a macro."""
        while isinstance(binding.value, Macro) and binding.value.name in self._bindings:
            binding = self._bindings[binding.value.name]
        return binding

    def _of(self, target: Reference | Macro) -> list[Binding]:
        """The bindings of a function or a macro, later ones winning: for "a/b", those of no scope, "a", "a/b"."""
        if isinstance(target, Macro):
            return [self._bindings[target.name]] if target.name in self._bindings else []
        parts = target.scope.split("/") if target.scope else []
        scopes = ["/".join(parts[:length]) for length in range(len(parts) + 1)]
        return [
            binding
            for scope in scopes
            for binding in self._bindings.values()
            if binding.parameter and (binding.function, binding.scope) == (target.function, scope)
        ]

    def value(self, value: Any, scope: str = "") -> Any:
        """Replaces macros by their values and references by bound functions; `@function()` becomes a `Call`."""
        if isinstance(value, Macro):
            binding = self._bindings.get(value.name)
            return self.value(binding.value, scope) if binding else value
        if isinstance(value, Reference):
            function = self.function(_inside(value, scope))
            return Call(function) if value.is_call else function
        if isinstance(value, dict):
            return {self.value(key, scope): self.value(item, scope) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.value(item, scope) for item in value)
        return value

    def function(self, reference: Reference) -> Callable:
        """Returns the function that is referred to, with the values that are bound in the reference's scope."""
        key = f"{reference.scope}/{reference.function}"
        if key not in self._functions:
            bindings = {binding.parameter: binding for binding in self._of(reference)}
            values = {name: self.value(binding.value, reference.scope) for name, binding in bindings.items()}
            places = {name: f"{binding.key} in {binding.where}" for name, binding in bindings.items()}
            self._functions[key] = Bound(self._known[reference.function], values, places)
        return self._functions[key]

    def bound(self) -> dict[str, Any]:
        """Maps the key of each binding to its value, with macros replaced by their values."""
        bindings = (binding for binding in self._bindings.values() if binding.parameter)
        return {binding.key: self._plain(binding.value) for binding in bindings}

    def _plain(self, value: Any) -> Any:
        """Replaces macros by their values; references stay."""
        if isinstance(value, Macro):
            binding = self._bindings.get(value.name)
            return self._plain(binding.value) if binding else str(value)
        if isinstance(value, dict):
            return {self._plain(key): self._plain(item) for key, item in value.items()}
        return type(value)(map(self._plain, value)) if isinstance(value, list | tuple) else value

    def operative(self) -> str:
        """Returns as the text of a config the bound values and the defaults of all functions that the root reaches."""
        lines: dict[str, str] = {}
        for reference, values in self._reached():
            for name, value in values.items():
                if _is_literal(value) and name not in _OF_A_CALL:
                    prefix = f"{reference.scope}/" if reference.scope else ""
                    lines[f"{prefix}{reference.function}.{name}"] = _written(value)
        return "".join(f"{key} = {value}\n" for key, value in sorted(lines.items()))

    def early_checks(self) -> list[Callable[[], None]]:
        """The checks of functions that the root reaches (see `checked_early`), each with its values."""
        checks, reached = {}, list(self._reached())
        nones = {f"{reference.function}.{name}" for reference, values in reached for name in values if values[name] is None}
        for reference, values in reached:
            function = self._known[reference.function]
            check = getattr(function, "check_early", None)
            if check and function.unless_none not in nones:
                arguments = {name: values[name] for name in inspect.signature(check).parameters}
                if not any(True for value in arguments.values() for _ in _references(value)):  # known only in the call
                    checks[check, repr(arguments)] = functools.partial(check, **arguments)
        return list(checks.values())

    def _reached(self) -> Iterator[tuple[Reference, dict[str, Any]]]:
        """Yields each function that the root reaches, with its bound values and its defaults; functions are references."""
        reached, waiting = set(), [Reference("", ROOT, False)]
        while waiting:
            reference = waiting.pop(0)
            if str(reference) in reached:
                continue
            reached.add(str(reference))
            bound = {binding.parameter: self._plain(binding.value) for binding in self._of(reference)}
            values = {}
            for name, parameter in inspect.signature(self._known[reference.function]).parameters.items():
                value = bound.get(name, parameter.default)
                name_of_default = getattr(value, "__name__", None)
                if self._known.get(name_of_default) is value and value is not None:
                    value = Reference("", name_of_default, False)
                waiting += [_inside(other, reference.scope) for other in _references(value) if isinstance(other, Reference)]
                values[name] = value
            yield reference, values


def _inside(reference: Reference | Macro, scope: str) -> Reference | Macro:
    """Gives a reference without a scope the scope in which it stands."""
    if isinstance(reference, Macro) or reference.scope or not scope:
        return reference
    return dataclasses.replace(reference, scope=scope)


def _is_unknown(value: Any) -> bool:
    """Whether the value contains the result of a call that is made later, or a macro that nothing gives."""
    if isinstance(value, Call | Macro):
        return True
    if isinstance(value, dict):
        return any(map(_is_unknown, (*value.keys(), *value.values())))
    return isinstance(value, list | tuple) and any(map(_is_unknown, value))


def _is_literal(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_literal, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple):
        return all(map(_is_literal, value))
    return value is None or isinstance(value, bool | int | float | str | Reference)


def _written(value: Any) -> str:
    """Writes a value as a config does."""
    if isinstance(value, Reference | Macro):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_written(key)}: {_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_written, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def _references(value: Any) -> Iterator[Reference | Macro]:
    if isinstance(value, Reference | Macro):
        yield value
    elif isinstance(value, dict):
        for item in (*value.keys(), *value.values()):
            yield from _references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)
