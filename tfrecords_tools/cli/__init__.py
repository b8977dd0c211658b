"""The program `tfrecords-tools`: one module a group of commands.

Import `main` from `main`; nothing else of the project imports from here.

May import: anything.
"""
