"""A page to try a model on, and what it asks for: what each input added, words, regions, near examples, new classes.

Import `add_demo` from `routes`. All of it asks the exported model, as any client could; only new classes need the run itself.
"""
