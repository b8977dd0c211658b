"""Examines packed datasets: verifies their files, finds leaks between splits, and computes statistics and a page of them.

Import `verify` from `verify`, `find_leaks` from `leakage`, `compute_stats` from `stats`, and `write_page` from `stats_page`.

May import: dataset, packing, progress.
"""
