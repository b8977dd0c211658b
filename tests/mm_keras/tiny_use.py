"""A SavedModel as small as tests need, called as the Universal Sentence Encoder is."""

from collections.abc import Callable, Mapping

import tensorflow as tf


class Encoder(tf.Module):
    def __init__(self, width):
        super().__init__()
        self.table = tf.Variable(tf.random.stateless_normal([64, width], [0, 1]))
        self.scale = tf.Variable(1.0)  # whose gradient is no number once there is an empty text

    def embed(self, texts):
        ids = tf.strings.to_hash_bucket_fast(tf.strings.split(tf.strings.lower(texts)), 64)
        return tf.reduce_mean(tf.ragged.map_flat_values(lambda each: tf.gather(self.table, each), ids), axis=1) * self.scale


class CallableEncoder(Encoder):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        return self.embed(texts)


def write_tiny_use(
    folder: str, width: int, signature: str | None, make_outputs: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
) -> str:
    """Writes a SavedModel of strings [B] -> float32 [B, width]; gives back its folder.

    Args:
        folder: where to.
        width: of the embedding.
        signature: its name; None: the model is called itself, as hub models of TensorFlow 2 are.
        make_outputs: `(embedding) -> outputs by name` of the signature.
    """
    module = Encoder(width) if signature else CallableEncoder(width)
    function = tf.function(lambda inputs: make_outputs(module.embed(inputs)))
    texts = tf.TensorSpec([None], tf.string, name="inputs")
    tf.saved_model.save(module, folder, {signature: function.get_concrete_function(texts)} if signature else None)
    return folder
