"""The program `mm-keras`: one module a command; `main` finds the command, `run_py` maps the published `--config=…` interface.

Import `main` from `main`; nothing else of the project imports from here.

May import: anything.
"""
