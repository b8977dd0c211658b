"""Sweeps: many trainings of one config, each in a process of its own, compared in a table, or a search for the best setting.

Import `run_sweep` from `run_sweep`; `sweep_file` says what a sweep file holds.

May import: config, distribution, runs, training.
"""
