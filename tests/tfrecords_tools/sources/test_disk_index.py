import resource
import sqlite3

import pytest

from tfrecords_tools.sources.disk_index import DiskIndex


def test_disk_index_finds_values_by_key_in_the_order_added():
    with DiskIndex() as index:
        for key, value in [("b", 1), ("a", {"x": ["é"]}), ("b", None), ("\ud800", 4)]:
            index.add(key, value)
        assert [index.get(key) for key in ("a", "b", "none", "\ud800")] == [[{"x": ["é"]}], [1, None], [], [4]]
        assert list(index.groups()) == [("\\ud800", [4]), ("a", [{"x": ["é"]}]), ("b", [1, None])]


def test_disk_index_keeps_rows_on_the_disk():
    with DiskIndex() as index:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(60_000):
            index.add(str(number % 20_000), [number, "x" * 2000])
        assert [value[0] for value in index.get("7")] == [7, 20_007, 40_007]
        assert sum(len(values) for _, values in index.groups()) == 60_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KB, of 120,000 added
    with pytest.raises(sqlite3.ProgrammingError):
        index.get("7")
