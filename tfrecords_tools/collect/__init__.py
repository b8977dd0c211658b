"""Fetches over the network what packing needs: images by their URLs, and texts of classes from Wikipedia. Both can be resumed.

Import `download` from `download`, `fetch_pages` and `compose_texts` from `wikipedia`, `check_class_texts` from `class_texts`.

May import: dataset, packing, sources, progress.
"""
