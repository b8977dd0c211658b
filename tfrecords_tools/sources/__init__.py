"""One module a raw format; each has `iter_examples(...)` and `make_source(...)`, which declares it for packing.

What they share: files.py (text, CSV, folders), json_stream.py (large JSON), disk_index.py (joins beyond memory).
"""
