"""The parser of both programs: it accepts either spelling of long options, and names what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import re

INTERRUPTED = 130  # the exit status after Ctrl-C, as shells have it: 128 + SIGINT

_INVALID_CHOICE = re.compile(r"invalid choice: '(?P<received>.*)' \(choose from (?P<choices>.*)\)")


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose long options are declared with underscores and accepted with hyphens, too.

    `--dry-run` is read as `--dry_run`; help shows the latter alone. Options cannot be abbreviated. The error for an unknown
    option or command ends with the nearest known one. Sub-parsers are of this class as well.
    """

    def __init__(self, *arguments, **options):
        defaults = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(*arguments, **(defaults | options))

    def parse_known_args(self, args=None, namespace=None):
        """Like that of `argparse`, but an unknown argument is an error of the (sub-)parser that received it.

        So the error shows the usage of the command, and suggests the command's own options.
        """
        namespace, unknown = super().parse_known_args(None if args is None else with_underscores(args), namespace)
        if unknown:
            options = set(re.findall(r"--\w+", self.format_help()))
            near = [hint for word in unknown for hint in _nearest(word.partition("=")[0], options)]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{_did_you_mean(near)}")
        return namespace, unknown

    def error(self, message: str):
        match = _INVALID_CHOICE.search(message)
        near = _nearest(match["received"], re.findall(r"[\w-]+", match["choices"])) if match else []
        super().error(message + _did_you_mean(near))


def with_underscores(arguments: list[str]) -> list[str]:
    """["--dry-run", "--set=a-b", "--", "--c-d"] -> ["--dry_run", "--set=a-b", "--", "--c-d"]."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [_with_underscores(argument) for argument in arguments[:end]] + arguments[end:]


def _with_underscores(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _nearest(received: str, known) -> list[str]:
    return difflib.get_close_matches(received, sorted(known), 1)


def _did_you_mean(near: list[str]) -> str:
    return f"; did you mean {' '.join(near)}?" if near else ""
