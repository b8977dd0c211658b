"""One module a raw format: each has `iter_examples(...)`, and `make_source(...)`, which declares it for packing.

Import `Source` and `SourceExample` from `example`. What formats share is in `files` (text, CSV, folders), `json_stream` (large
JSON) and `disk_index` (joins that exceed the memory); `tags` makes labels of the words that tell definitions apart.

May import: dataset, progress.
"""
