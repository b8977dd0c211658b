"""Runs frozen encoders once on the pictures of a split and on each distinct text, and keeps the results on disk.

    <dataset>/.features/<fingerprint>/
        train-00000-of-00004/encoded.npy        float32 [n, D]: embeddings of pictures, one block for each shard
    <dataset>/.features/<fingerprint>/
        00000/encoded.npy                       float32 [n, D]: embeddings of distinct texts

The fingerprint is computed from the encoder with its weights, the preprocessing, and the pictures or texts. So an outdated
cache is never used, and trainings share the parts that they have in common.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import mm_keras
from mm_keras.data.damage import naming_damage
from mm_keras.data.pipeline import make_image_batches
from mm_keras.data.preprocess import Preprocessor
from mm_keras.data.stored_blocks import MOST_BLOCKS, NewBlock, StoredRows, fill_blocks
from mm_keras.data.text_table import TextTable
from mm_keras.features import FeatureSpec, TextSpec, TokenText
from tfrecords_tools.dataset.folder import Dataset, Split
from tfrecords_tools.dataset.info import DATASET_FILE
from tfrecords_tools.dataset.shards import CorruptShardError, sha256_of

CACHE_FOLDER = ".features"
ENCODED = "encoded"
_BLOCK_TEXTS = 4096  # at least, of a block; texts are sorted by length within a block
_BATCH_TOKENS = 4096
_MOST_TEXTS = 256  # in a batch


class FrozenEncoder:
    """An encoder, or its frozen part, as a graph that is traced once, for any batch size and any length of texts.

    Args:
        model: the encoder: its inputs -> [B, …].
        dtype: of its output: "float32", or "float16" for states of tokens, which take much room.
    """

    def __init__(self, model: keras.Model, dtype: str = "float32"):
        self._model = model
        self._dtype = dtype
        tokens = model.input.get("token_ids") if isinstance(model.input, dict) else None
        self.takes_tokens = tokens is not None
        self.has_fixed_length = self.takes_tokens and tokens.shape[1] is not None

    @functools.cached_property
    def digest(self) -> str:
        """A checksum of architecture and weights."""
        # Left out: the numbers in layers' names, which count the layers that the program has made so far, and which layers are
        # frozen, on which the output does not depend.
        architecture = re.sub(r'_\d+"|"trainable": (true|false)', '"', self._model.to_json())
        digest = hashlib.sha256((architecture + self._dtype).encode())
        for weight in self._model.weights:
            digest.update(np.ascontiguousarray(weight))
        return digest.hexdigest()

    def __call__(self, inputs) -> np.ndarray:
        return self._traced(inputs).numpy()

    def num_states(self, num_tokens: int) -> int:
        """The number of states that the encoder gives for a text of `num_tokens` tokens, if it gives states of tokens."""
        inputs = {name: keras.KerasTensor((1, num_tokens), tensor.dtype) for name, tensor in self._model.input.items()}
        return self._model.compute_output_spec(inputs).shape[1]

    @functools.cached_property
    def _traced(self):
        # Not `predict`: under a strategy it gives each replica the whole batch, and waits for workers that wait for this one.
        def encode(inputs) -> tf.Tensor:
            return tf.cast(self._model(inputs, training=False), self._dtype)  # NumPy's files know no bfloat16

        def spec(tensor: keras.KerasTensor) -> tf.TensorSpec:
            return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)

        return tf.function(encode, autograph=False).get_concrete_function(tf.nest.map_structure(spec, self._model.input))


class TextPreprocessor:
    """`Preprocessor.text` as a graph for each field. The `Preprocessor` is made once a text is not cached: it takes a while."""

    def __init__(self, features: FeatureSpec):
        self._features = features
        self._graphs: dict[str, Callable] = {}

    def __call__(self, spec: TextSpec, texts: Sequence[bytes]) -> dict[str, tf.Tensor]:
        if spec.key not in self._graphs:
            text = functools.partial(self._preprocessor.text, spec)
            self._graphs[spec.key] = tf.function(text, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        return self._graphs[spec.key](tf.constant(texts))

    @functools.cached_property
    def _preprocessor(self) -> Preprocessor:
        return Preprocessor(self._features)


def encode_images(
    split: Split, features: FeatureSpec, encoder: FrozenEncoder, sizes: Sequence[int], batch_size: int = 32
) -> StoredRows:
    """Encodes the pictures of the labelled records of a split, in the records' order.

    Args:
        split: the split whose pictures are encoded.
        features: what the model takes in.
        encoder: float32 [B, H, W, 3] -> [B, …].
        sizes: number of labelled records in each shard of the split.
        batch_size: pictures in a batch; only the memory depends on it.

    Raises:
        CorruptShardError: if a shard that is read is not what dataset.json says.
    """
    split.check_files()
    files = split.files
    step = -(-len(files) // MOST_BLOCKS)
    blocks = {files[first].stem: slice(first, first + step) for first in range(0, len(files), step)}

    def make(block: str, new: NewBlock) -> None:
        # Blocks are found again by the checksums in dataset.json, so that they must be made of exactly these files.
        for shard, file in zip(split.shards[blocks[block]], files[blocks[block]], strict=True):
            if sha256_of(file) != shard.sha256:
                raise CorruptShardError(f"{file} is damaged: its sha256 is not that of {DATASET_FILE}. {split.how_to_mend()}")
        num_done = 0
        with naming_damage(split):
            for pixels in make_image_batches(files[blocks[block]], features, batch_size, counts[block]):
                encoded = encoder(pixels)
                new.write(slice(num_done, num_done + len(encoded)), {ENCODED: encoded})
                num_done += len(encoded)

    shards = [shard.sha256 for shard in split.shards]
    fingerprint = _fingerprint(encoder.digest, features.image, shards, features.multi_label)
    counts = {block: sum(sizes[part]) for block, part in blocks.items()}
    counts = {block: count for block, count in counts.items() if count}
    folder = split.dataset.folder / CACHE_FOLDER / fingerprint
    paths = fill_blocks(folder, counts, make, f"encoding the images of {split.name}")
    return StoredRows([path / f"{ENCODED}.npy" for path in paths])


def encode_texts(
    dataset: Dataset, preprocess: TextPreprocessor, spec: TextSpec, encoder: FrozenEncoder | None, table: TextTable
) -> dict[str, StoredRows]:
    """Encodes each distinct text of a field; without an encoder, only tokenises it.

    Texts of about the same length are batched together, and a batch is padded to its longest text.

    Args:
        dataset: the dataset beside which the result is kept.
        preprocess: the preprocessing of the model's features.
        spec: the text field.
        encoder: maps the inputs of `spec` to [B, …]; None: the inputs themselves are kept.
        table: the distinct texts.

    Returns:
        {"encoded": [number of texts, …]}, or without an encoder the inputs of `spec` by name.
    """
    size = max(_BLOCK_TEXTS, -(-len(table.texts) // MOST_BLOCKS))
    starts = {f"{index:05d}": first for index, first in enumerate(range(0, len(table.texts), size))}
    names = [ENCODED] if encoder else list(spec.inputs())

    def make(block: str, new: NewBlock) -> None:
        texts = table.texts.slice(starts[block], size).to_numpy(zero_copy_only=False)
        batches = [preprocess(spec, texts[first : first + 1024]) for first in range(0, len(texts), 1024)]
        inputs = {
            name: np.concatenate([batch[batch_name] for batch in batches]) for name, batch_name in spec.batch_names().items()
        }
        if not encoder:
            new.write(slice(None), inputs)
            return
        for rows, batch in iter_buckets(inputs, fixed=encoder.has_fixed_length):
            encoded = encoder(batch)
            if encoder.takes_tokens and encoded.ndim == 3:  # a state for each token: padded with zeros
                num_states = encoder.num_states(spec.max_tokens)
                encoded = np.pad(encoded, [(0, 0), (0, num_states - encoded.shape[1]), (0, 0)])
            new.write(rows, {ENCODED: encoded})

    digest = hashlib.sha256()
    for start in starts.values():
        digest.update(repr(table.texts.slice(start, size).to_pylist()).encode())
    fingerprint = _fingerprint(encoder and encoder.digest, *_made_by(spec), digest.hexdigest(), names)
    counts = {block: min(size, len(table.texts) - start) for block, start in starts.items()}
    action = "encoding" if encoder else "tokenising"
    folder = dataset.folder / CACHE_FOLDER / fingerprint
    paths = fill_blocks(folder, counts, make, f"{action} texts of {spec.field!r}")
    return {name: StoredRows([path / f"{name}.npy" for path in paths]) for name in names}


def iter_buckets(
    given: dict[str, np.ndarray], fixed: bool = False, batch_tokens: int = _BATCH_TOKENS
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yields batches of texts of about the same length, the longest first, so that a lack of memory shows at once.

    Args:
        given: "token_ids" int32 and "padding_mask" bool [N, T]; or other arrays [N, …], which are only cut into batches.
        fixed: whether texts stay padded to T.
        batch_tokens: about how many tokens a batch has, its padding included.

    Yields:
        (numbers of the texts [B], the arrays of these texts, cut to the longest of them).
    """
    num = len(next(iter(given.values())))
    if "padding_mask" not in given or fixed:
        lengths = np.full(num, given["padding_mask"].shape[1] if "padding_mask" in given else 1)
    else:
        lengths = np.maximum(1, given["padding_mask"].sum(axis=1))
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < num:
        longest = int(lengths[order[first]])
        rows = order[first : first + max(1, min(_MOST_TEXTS, batch_tokens // longest))]
        has_tokens = "padding_mask" in given
        yield rows, {name: array[rows, :longest] if has_tokens else array[rows] for name, array in given.items()}
        first += len(rows)


def _made_by(spec: TextSpec) -> list[object]:
    """What the preprocessing of this field's texts depends on: the tokenizer, or the checksums of the SavedModel's files."""
    if isinstance(spec, TokenText):
        return [spec.tokenizer, spec.max_tokens]
    return [sha256_of(path) for path in sorted(Path(spec.embedder.path).rglob("*")) if path.is_file()]


def _fingerprint(*made_of) -> str:
    digest = hashlib.sha256()
    for part in (mm_keras.__version__, keras.__version__, *made_of):
        digest.update(repr(part).encode())
    return digest.hexdigest()[:24]
