"""Reads raw datasets: each format has one module with `make_source` for packing and `COMMAND` for the command line.

Import `Source`, `SourceExample` and `Rejection` from `example`, and `make_source` from the module of a format. `command` finds
the commands. Formats share `files` (text, CSV, folders), `image_files` (what an image's path may reach), `text_rows` (rows of
text, of which a broken one does not spoil others), `json_stream` (large JSON files), `disk_index` (joins that exceed the
memory), and `tags` (labels made of class texts). `imagenet_val` and `webvision_metadata` belong to the formats that they are
named after.

Tables are opened by `table_rows`, which finds out by `table_file` how they are written; `table_cells` and `table_images` say
what cells mean, `table_roles` and `table_checks` what is checked before anything is packed. Prediction reads tables by these
modules, too.

May import: dataset.
"""
