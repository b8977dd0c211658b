"""Raw strings and image bytes become the features of a batch, by functions that training, evaluation and export share."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from mm_keras.data.images import decode_image, fit_image
from mm_keras.data.text import make_tokenizer
from mm_keras.features import IMAGE, EmbeddedText, FeatureSpec, TextSpec, TokenText, present
from mm_keras.tf_text_model.embedder import SavedModelEmbedder


class Preprocessor(tf.Module):
    """Makes the features of a batch. It is a tf.Module, so that an export carries its tokenizers and embedders.

    Args:
        features: what a batch holds.
    """

    def __init__(self, features: FeatureSpec):
        super().__init__()
        self._features = features
        tokenizers = dict.fromkeys(text.tokenizer for text in features.texts if isinstance(text, TokenText))
        embedders = dict.fromkeys(text.embedder for text in features.texts if isinstance(text, EmbeddedText))
        # Lists, since a tf.Module looks for what it must save in lists, and in dicts only of strings.
        self._specs = [*tokenizers, *embedders]
        self._makers = [*map(make_tokenizer, tokenizers), *(SavedModelEmbedder(embedder.path) for embedder in embedders)]

    def texts(self, texts: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The features and presence flags of text fields, given as key -> string [B]. A blank text counts as missing."""
        inputs = {}
        for spec in self._features.texts:
            inputs |= self.text(spec, texts[spec.key])
        return inputs

    def text(self, spec: TextSpec, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """The features and the presence flag of one text field; `texts` is string [B]."""
        stripped = tf.strings.strip(texts)
        is_present = tf.strings.length(stripped) > 0
        if isinstance(spec, TokenText):  # no `match`: AutoGraph cannot read it
            tokenize = self._makers[self._specs.index(spec.tokenizer)]
            token_ids, padding_mask = tokenize(stripped, spec.max_tokens)
            inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        elif isinstance(spec, EmbeddedText):
            embed = self._makers[self._specs.index(spec.embedder)]
            embedding = tf.ensure_shape(embed(stripped), [stripped.shape[0], spec.embedder.width])
            inputs = {"embedding": tf.where(is_present[:, tf.newaxis], embedding, 0.0)}
        else:
            inputs = {"text": stripped}
        names = spec.batch_names()
        return {present(spec.name): is_present} | {names[name]: tensor for name, tensor in inputs.items()}

    def image(self, data: tf.Tensor) -> tf.Tensor:
        """Decodes an encoded image, string [], into float32 [H, W, 3] within [0, 255]. An empty string gives zeros."""
        return made_or_zeros(data, self._features.image.size, lambda: fit_image(decode_image(data), self._features.image))

    def raw(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """All features of what a client sends: encoded bytes as "image" and the text fields by their keys, string [B] each."""
        inputs = self.texts(raw)
        if self._features.image:
            pixels = tf.TensorSpec([*self._features.image.size, 3], tf.float32)
            inputs[IMAGE] = tf.map_fn(self.image, raw[IMAGE], fn_output_signature=pixels)
            inputs[present(IMAGE)] = tf.strings.length(raw[IMAGE]) > 0
        return inputs


def made_or_zeros(data: tf.Tensor, size: tuple[int, int], make: Callable[[], tf.Tensor]) -> tf.Tensor:
    """The result of `make` for an encoded image, or zeros, float32 [*size, 3], if `data` is empty."""
    return tf.cond(tf.strings.length(data) > 0, make, lambda: tf.zeros([*size, 3], tf.float32))
