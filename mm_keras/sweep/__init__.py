"""Many trainings of one config, compared: grids and searches, each training in a process of its own.

Import `run_sweep` from `run_sweep`; `sweep_file` says what a sweep file holds.

May import: config, runs, training.
"""
