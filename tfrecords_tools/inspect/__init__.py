"""Is a dataset folder what it claims to be, and what is in it: verification, leaks between splits, statistics and their page.

Import `verify`, `find_leaks` and `compute_stats` from the modules of these tasks.

May import: dataset, packing, progress.
"""
