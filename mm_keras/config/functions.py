"""Finds the functions that a config can bind: those marked `@configurable` in the packages and modules listed here."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable

import mm_keras

_MODULES = ("data", "model", "objectives", "tf_text_model", "training", "runs", "report", "packed", "experiment")


@functools.cache
def configurable_functions() -> dict[str, Callable]:
    """All functions that a config can bind, by name, in alphabetical order.

    Raises:
        RuntimeError: if two functions have one name.
    """
    functions: dict[str, Callable] = {}
    for module in configurable_modules():
        for name, function in vars(module).items():
            is_marked = inspect.isfunction(function) and getattr(function, "configurable", False)
            if not is_marked or function.__module__ != module.__name__:
                continue
            if name in functions:
                raise RuntimeError(f"{name} is configurable in {functions[name].__module__} and {module.__name__}: rename one")
            functions[name] = function
    return dict(sorted(functions.items()))


def configurable_modules():
    """Yields all modules in which configurable functions are searched for."""
    for name in _MODULES:
        module = importlib.import_module(f"{mm_keras.__name__}.{name}")
        yield module
        for submodule in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
            yield importlib.import_module(submodule.name)
