"""The program `mm-keras`: one module a command; `main` finds the command, `run_py` maps the published `--config=…` interface.

To add a command, add its module and its name in `main.COMMANDS`. A command's module has the texts `SUMMARY` (one line),
`DESCRIPTION` and `EXAMPLES`, and the functions `add_arguments(parser)` and `run(options)`, which returns the exit status. It
imports TensorFlow, and what imports TensorFlow, inside `run` alone, after `start_up.import_tensorflow()`, so that `--help` and
the errors of a wrong call come at once.

Import `main` from `main`; nothing else of the project imports from here.

May import: anything, tfrecords_tools.cli.parser.
"""
