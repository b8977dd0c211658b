"""One module a raw format; each has `iter_examples(...)` and `make_source(...)`, which declares it for packing."""
