"""The page of a trained run, of several runs compared, and the model card, with their data beside them.

Import `report` from `report` and `compare` from `compare`. Three kinds of modules: those that compute on arrays alone
(`measures`, `subsets`, `calibration`, `label_errors`, `near_duplicates`, `drift`, `neighbours`, `maps`, `confusion`), which
know neither runs nor pages; those that read a run (`loaded_run`, `examples`, `evidence`) and make one section each of what
it answers (`section_*`), as JSON values; and those that write (`figures`, `draw_*`, `page`, `model_card`), from these values
alone.

May import: features, data, model, objectives, runs, distribution, keras_internals, tfrecords_tools.inspect.
"""
