"""Raw strings and image bytes become the features of a batch, by functions that training, evaluation and export share."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from mm_keras.data.image_headers import DAMAGED, PROBLEMS, TOO_LARGE, aside
from mm_keras.data.images import decode_image, fit_image
from mm_keras.data.text import make_tokenizer, strip_texts
from mm_keras.features import IMAGE, EmbeddedText, FeatureSpec, ImageSpec, TextSpec, TokenText, present
from mm_keras.tf_text_model.embedder import SavedModelEmbedder
from tfrecords_tools.dataset.schema import MAX_PIXELS

_SMALL = 2**21  # pixels; smaller pictures are decoded in parallel, 16 at a time at most, each in 32 MB with its copy in floats


class Preprocessor(tf.Module):
    """Makes the features of a batch. It is a tf.Module, so that an export carries its tokenizers and embedders.

    Args:
        features: what a batch holds.
        core_ops_only: whether tokenizers do without the operations of TensorFlow Text.
    """

    def __init__(self, features: FeatureSpec, core_ops_only: bool = False):
        super().__init__()
        self._features = features
        tokenizers = dict.fromkeys(text.tokenizer for text in features.texts if isinstance(text, TokenText))
        embedders = dict.fromkeys(text.embedder for text in features.texts if isinstance(text, EmbeddedText))
        # Lists: a tf.Module finds in them what it has to save, but in dicts only if all keys are strings.
        self._specs = [*tokenizers, *embedders]
        self._makers = [make_tokenizer(spec, core_ops_only) for spec in tokenizers]
        self._makers += [SavedModelEmbedder(embedder.path) for embedder in embedders]

    def texts(self, texts: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The features and presence flags of text fields, given as key -> string [B]. A blank text counts as missing."""
        inputs = {}
        for spec in self._features.texts:
            inputs |= self.text(spec, texts[spec.key])
        return inputs

    def text(self, spec: TextSpec, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """The features and the presence flag of one text field; `texts` is string [B]."""
        stripped = strip_texts(texts)
        is_present = tf.strings.length(stripped) > 0
        if isinstance(spec, TokenText):
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

    def raw(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """All features of what a client sends: encoded bytes as "image" and the text fields by their keys, string [B] each.

        A picture that cannot be read counts as missing; `checked_raw` says so.
        """
        return self.checked_raw(raw)[0]

    def checked_raw(self, raw: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """The features of `raw`, and string [B] of why an example's picture cannot be read; "" where nothing is wrong."""
        inputs = self.texts(raw)
        if not self._features.image:
            return inputs, tf.zeros_like(next(iter(raw.values())))
        pixels, problems = read_images(raw[IMAGE], self._features.image)
        inputs[IMAGE] = pixels
        inputs[present(IMAGE)] = (tf.strings.length(raw[IMAGE]) > 0) & (problems == 0)
        return inputs, tf.gather(tf.constant(PROBLEMS), problems)


def read_images(encoded: tf.Tensor, spec: ImageSpec) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and fits pictures, each for itself: a damaged picture does not affect the others of its batch.

    In a graph, an error ends every operation except those of a dataset, which can leave out the elements that fail; so the
    pictures go through a dataset. Small ones are decoded in parallel, large ones one after the other, so that these take only
    the memory of the largest. A single JPEG that has its end marker is decoded directly, which saves the 5 ms that a dataset
    takes to start.

    Args:
        encoded: string [B]; empty: there is no picture.
        spec: the tower's size, and how pictures are brought to it.

    Returns:
        float32 [B, H, W, 3] within [0, 255], and int32 [B]: why a picture cannot be read, as an index in `PROBLEMS`. Pictures
        that are missing or cannot be read are zeros.

    Raises:
        tf.errors.InvalidArgumentError: when the function runs, if B is 1 and a JPEG that has its end is damaged inside.
    """
    shape, count = [*spec.size, 3], tf.size(encoded, tf.int64)

    def none() -> tuple[tf.Tensor, tf.Tensor]:
        return tf.zeros(tf.stack([count, *shape])), tf.zeros([count], tf.int32)

    def alone() -> tuple[tf.Tensor, tf.Tensor]:
        pixels, problem = _make_reader(spec, MAX_PIXELS)(encoded[0])
        return pixels[tf.newaxis], problem[tf.newaxis]

    def together() -> tuple[tf.Tensor, tf.Tensor]:
        read_small, read = _make_reader(spec, _SMALL), _make_reader(spec, MAX_PIXELS)

        def read_large(index, data, pixels, problem):
            return index, *tf.cond(problem == TOO_LARGE, lambda: read(data), lambda: (pixels, problem))

        pictures = tf.data.Dataset.from_tensor_slices(encoded).enumerate()
        pictures = pictures.map(
            lambda index, data: (index, data, *read_small(data)), num_parallel_calls=tf.data.AUTOTUNE, deterministic=False
        )
        readable = pictures.ignore_errors().map(read_large).ignore_errors()
        filler = tf.data.Dataset.from_tensors((count, tf.zeros(shape), 0))  # comes last, so that no batch is empty
        batch = readable.concatenate(filler).batch(count + 1).with_options(_as_written())
        indices, pixels, problems = batch.get_single_element()
        indices = indices[:-1, tf.newaxis]
        pixels = tf.scatter_nd(indices, pixels[:-1], tf.stack([count, *shape]))
        return pixels, tf.tensor_scatter_nd_update(tf.fill([count], DAMAGED), indices, problems[:-1])

    def some() -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cond((count == 1) & _is_whole_jpeg(encoded[0]), alone, together)

    pixels, problems = tf.cond(tf.reduce_any(tf.strings.length(encoded) > 0), some, none)
    return tf.ensure_shape(pixels, [encoded.shape[0], *shape]), tf.ensure_shape(problems, [encoded.shape[0]])


def _is_whole_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Whether data begin and end as a JPEG does. One with bytes behind its end is missed, and takes a little longer."""
    last = tf.maximum(tf.strings.length(data) - 2, 0)
    return (tf.strings.substr(data, 0, 2) == b"\xff\xd8") & (tf.strings.substr(data, last, 2) == b"\xff\xd9")


@functools.cache  # it is traced once, whatever the number of models
def _make_reader(spec: ImageSpec, max_pixels: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Makes a graph function: an encoded picture, string [] -> its pixels, and the index in `PROBLEMS` of what is wrong."""

    @aside
    def read(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        missing = tf.zeros([*spec.size, 3])

        def decode() -> tuple[tf.Tensor, tf.Tensor]:
            image, problem = decode_image(data, max_pixels)
            return tf.cond(problem == 0, lambda: fit_image(image, spec), lambda: missing), problem

        pixels, problem = tf.cond(tf.strings.length(data) > 0, decode, lambda: (missing, 0))
        return tf.ensure_shape(pixels, missing.shape), problem

    return read


def _as_written() -> tf.data.Options:
    """Options that keep TensorFlow from optimizing a dataset, which would take longer than its few elements do."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    return options


def made_or_zeros(data: tf.Tensor, size: tuple[int, int], make: Callable[[], tf.Tensor]) -> tf.Tensor:
    """The result of `make` for an encoded image, or zeros, float32 [*size, 3], if `data` is empty."""
    return tf.cond(tf.strings.length(data) > 0, make, lambda: tf.zeros([*size, 3], tf.float32))
