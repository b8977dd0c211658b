"""SavedModels that map strings to vectors, such as the Universal Sentence Encoder (TensorFlow only).

Import `make_saved_model_embedder` for a SavedModel that stays frozen and runs in the input pipeline, and
`build_saved_model_encoder` for one that is a layer of the model and is fine-tuned.

May import: features, downloads, keras_internals.
"""
