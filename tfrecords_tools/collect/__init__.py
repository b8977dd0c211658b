"""What is fetched over the network before packing: images by URL, texts of classes from Wikipedia; each can be resumed.

Import `download` and `fetch_pages` from the modules `download` and `wikipedia`, `check_class_texts` from `class_texts`.

May import: dataset, packing, sources, progress.
"""
