"""Records become batches: decoding, augmentation, tokenisation, sampling, and the cache of what frozen encoders compute.

Import `make_features`, the tokenizers, and the `make_*_batches` of `pipeline` from here; nothing here knows a model.

May import: features, caption_words, scripts, distribution, downloads, tf_text_model, keras_internals.
"""
