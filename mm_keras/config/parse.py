"""Reads config files as bindings, each with its file and line. Of gin only the parser is used, which keeps no state."""

from __future__ import annotations

import dataclasses
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gin import config_parser

import mm_keras

_PACKAGE = Path(mm_keras.__file__).parent
CONFIG_FOLDER = next(folder / "configs" for folder in (_PACKAGE, _PACKAGE.parent) if (folder / "configs").is_dir())
COMMAND_LINE = "--gin_bindings"
REQUIRED = "gin.REQUIRED"


class ConfigError(ValueError):
    """The config cannot run; the message lists every problem."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@scope/function` is a function; `@scope/function()` is the result of calling it, each time it is needed."""

    scope: str
    function: str
    is_call: bool

    def __str__(self) -> str:
        return f"@{self.scope}{'/' if self.scope else ''}{self.function}{'()' if self.is_call else ''}"


@dataclasses.dataclass(frozen=True)
class Macro:
    """`%NAME` stands for the value that another line gives as `NAME = …`."""

    name: str

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclasses.dataclass(frozen=True)
class Binding:
    """One statement of a config.

    Attributes:
        scope: the scope before the function's name, or "".
        function: the name of the function or of the macro.
        parameter: the name of the function's parameter; "" where the statement gives a macro.
        value: a Python literal, which may contain `Reference` and `Macro` objects.
        where: the file and the line that the statement begins in, or the command line.
    """

    scope: str
    function: str
    parameter: str
    value: Any
    where: str

    @property
    def key(self) -> str:
        """The left side of the statement: "scope/function.parameter", or the name of a macro."""
        name = f"{self.scope}/{self.function}" if self.scope else self.function
        return f"{name}.{self.parameter}" if self.parameter else name

    @property
    def owner(self) -> Reference | Macro:
        """The function or macro that the value is given to."""
        return Reference(self.scope, self.function, False) if self.parameter else Macro(self.function)


def parse_file(path: Path, including: tuple[Path, ...] = ()) -> Iterator[Binding]:
    """Yields the bindings of a file and of the files that it includes, in the order in which they are read.

    An included file is looked for beside the including one, then in the config folder.

    Raises:
        ConfigError: if a line is no statement, or an included file does not exist or includes itself.
    """
    if path in including:
        raise ConfigError(f"{path} includes itself")
    for statement in _parse(path.read_text("utf-8"), str(path)):
        if isinstance(statement, Binding):
            yield statement
            continue
        folders = (path.parent, CONFIG_FOLDER)
        included = next((folder / statement.filename for folder in folders if (folder / statement.filename).is_file()), None)
        if not included:
            raise ConfigError(
                f"{path}, line {statement.location.line_num}: no file {statement.filename!r} in "
                f"{' or '.join(map(str, folders))}"
            )
        yield from parse_file(included, (*including, path))


def parse_lines(lines: Sequence[str]) -> Iterator[Binding]:
    """Yields the bindings of the command line.

    Raises:
        ConfigError: if a line is no binding.
    """
    for line in lines:
        for statement in _parse(line, ""):
            if not isinstance(statement, Binding):
                raise ConfigError(f"{COMMAND_LINE}: files are included by a config alone. Received: {line!r}")
            yield statement


class _Delegate(config_parser.ParserDelegate):
    """Tells gin's parser to return references and macros as our objects."""

    def configurable_reference(self, scoped_configurable_name, evaluate):
        scope, _, function = scoped_configurable_name.rpartition("/")
        return Reference(scope, function, bool(evaluate))

    def macro(self, macro_name):
        return Macro(macro_name)


def _parse(text: str, file: str) -> Iterator[Binding | config_parser.IncludeStatement]:
    lines = text.splitlines() or [""]
    try:
        parser = config_parser.ConfigParser(text, _Delegate())
    except (tokenize.TokenError, SyntaxError) as error:
        raise ConfigError(f"{file or COMMAND_LINE}: {error.args[0]}") from error
    while True:
        number = _first_statement(lines, parser.current_token.start[0])
        try:
            statement = parser.parse_statement()
        except tokenize.TokenError as error:
            where = f"{file}, line {number}" if file else COMMAND_LINE
            raise ConfigError(f"{where}: `{lines[number - 1].strip()}`: a bracket or a quote is never closed") from error
        except (SyntaxError, ValueError) as error:
            raise ConfigError(_not_understood(error, parser, lines, file, number)) from error
        if statement is None:
            return
        if isinstance(statement, config_parser.BindingStatement):
            number = statement.location.line_num
            where = f"{file}, line {number}" if file else COMMAND_LINE
            scope, function, parameter = statement.scope, statement.selector, statement.arg_name
            yield Binding(scope or "", function, parameter or "", statement.value, where)
        elif isinstance(statement, config_parser.IncludeStatement):
            yield statement
        elif isinstance(statement, config_parser.ImportStatement):
            raise ConfigError(f"{file or COMMAND_LINE}, line {number}: a config imports nothing; functions are known by name")


def _first_statement(lines: list[str], number: int) -> int:
    """Returns the number of the first line from `number` on that is neither empty nor a comment."""
    statements = (index for index in range(number, len(lines) + 1) if lines[index - 1].partition("#")[0].strip())
    return next(statements, len(lines))


def _not_understood(error: Exception, parser: config_parser.ConfigParser, lines: list[str], file: str, begin: int) -> str:
    location = error.args[1] if isinstance(error, SyntaxError) and len(error.args) > 1 else None
    number = location[1] if location else parser.current_token.start[0]
    line = lines[min(number, len(lines)) - 1].strip()
    where = f"{file}, line {number}" if file else COMMAND_LINE
    opened = f" It follows line {begin}, `{lines[begin - 1].strip()}`, where a bracket may be open." if number > begin else ""
    return (
        f"{where}: `{line}` is not understood.{opened} A line is `function.parameter = value`, `NAME = value` or "
        '`include "file"`; a text is written in quotes, a function as @name, the result of calling it as @name(), and a macro '
        "as %NAME"
    )
