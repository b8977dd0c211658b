"""`mm-keras <command>`: finds the command, runs it, and turns what it raises into one line and an exit status."""

from __future__ import annotations

import importlib
import signal
import sys
from types import ModuleType

import mm_keras
from mm_keras.distribution.preemption import EXIT_CODE, MESSAGE, Preempted, asked_to_end, end_if_asked, noticing_sigterm
from tfrecords_tools.cli.parser import INTERRUPTED, Parser
from tfrecords_tools.dataset.printable import LINE_BREAK, printable
from tfrecords_tools.progress import showing

_TOLD = (ValueError, OSError, ImportError, RuntimeError, ArithmeticError)  # errors that are shown by their message alone
_PATIENCE = 20  # seconds that a command may take to notice that it should end
COMMANDS = ("train", "evaluate", "report", "predict", "export", "serve", "demo", "verify", "add-classes", "fuse")
COMMANDS += ("thresholds", "experts", "agree", "few-shot", "relevance", "sweep", "study")

_DESCRIPTION = "Train, evaluate and ship classifiers of images that come with text."
_EPILOG = """example:
  mm-keras train quickstart.gin                          trains, evaluates and exports, on drawn sample data
  mm-keras predict runs/quickstart --text='title=Solid oak'

`mm-keras COMMAND --help` describes a command's options, with an example.
"""


def main(arguments: list[str] | None = None, is_program: bool = False) -> int:
    """Runs one command; without arguments it prints what commands there are.

    Args:
        arguments: the command and its options, `["train", "quickstart.gin"]`. The default is those of the process.
        is_program: whether the process ends afterwards; by default it does if no arguments are given.

    Returns:
        the exit status. 0: all is well. 2: the call, the config or the data is wrong. 75: the process was asked to end
        (SIGTERM), whatever it was at, or one of several workers is gone, and the same command with --resume goes on. 130: it
        was interrupted by Ctrl-C.
    """
    with noticing_sigterm(patience=_PATIENCE), showing():
        status = _run(sys.argv[1:] if arguments is None else arguments)
    if is_program or arguments is None:  # all is done but TensorFlow's clean-up
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return status


def _run(arguments: list[str]) -> int:
    parser = make_parser()
    if not arguments:
        parser.print_help()
        return 0
    if arguments[0].startswith(("--config", "--mode")):
        parser.error("the command comes first, as in `mm-keras train quickstart.gin` or `mm-keras evaluate runs/quickstart`")
    options = parser.parse_args(arguments)
    options.arguments = arguments
    try:
        status = options.run(options)
        end_if_asked()
        return status
    except KeyboardInterrupt:
        return _end(parser, "interrupted", INTERRUPTED)
    except Preempted as stop:
        return _end(parser, stop, EXIT_CODE)
    except Exception as error:
        if asked_to_end():  # packing may miss workers that got the signal, too
            return _end(parser, MESSAGE, EXIT_CODE)
        if options.traceback or not isinstance(error, _TOLD):
            raise
        return _end(parser, error, 2)


def make_parser() -> Parser:
    """The parser of all commands; `parse_args` sets `run` to the command's function."""
    parser = Parser("mm-keras", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"mm-keras {mm_keras.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = find_command(name)
        command = commands.add_parser(
            name, help=module.SUMMARY, description=module.DESCRIPTION, epilog=f"examples:\n{module.EXAMPLES}"
        )
        module.add_arguments(command)
        command.add_argument("--traceback", action="store_true", help="show where in the program an error comes from")
        command.set_defaults(run=module.run)
    return parser


def find_command(name: str) -> ModuleType:
    """The module of a command: that of add-classes is `mm_keras.cli.add_classes`."""
    return importlib.import_module(f"mm_keras.cli.{name.replace('-', '_')}")


def _end(parser: Parser, why: object, status: int) -> int:
    notes = "; ".join(getattr(why, "__notes__", ()))  # where a config binds the values that an error names
    message = printable(f"{why}{f' ({notes})' if notes else ''}", kept=LINE_BREAK)
    print(f"{parser.prog}: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
