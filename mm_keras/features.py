"""The contract of a batch, as data: `mm_keras.data`, `mm_keras.model` and the export agree on it without importing each other.

A batch is `(features, labels, weights)`. `features` is a flat dict. For an image of 224x224 pixels and a text field "title" it
holds:

    image                float32 [B, 224, 224, 3]   RGB within [0, 255]; towers rescale to their own range themselves
    image_present        bool    [B]                False where there is no image; the pixels are zeros then
    title_token_ids      int32   [B, max_tokens]    0 = padding
    title_padding_mask   bool    [B, max_tokens]    True = a token
    title_present        bool    [B]                False where there is no text; all tokens are padding then

A field that a frozen SavedModel embeds has a vector in place of the tokens:

    title_embedding      float32 [B, D]             zeros where there is no text

A field whose SavedModel is a part of the model, and is trained with it, has the string itself (on one replica only):

    title_text           string  [B]                empty where there is no text

A field whose name is no identifier, such as "Review Text", has another name here: see `input_names`.

`labels` is int32 [B] (multi-class) or float32 [B, num_labels] of 0 and 1 (multi-label). `weights` is float32 [B]; the examples
that fill up the last batch of an evaluation have the weight 0.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from mm_keras.input_names import ALL_INPUTS as ALL_INPUTS
from mm_keras.input_names import ALL_TEXTS as ALL_TEXTS
from mm_keras.input_names import IMAGE, input_name, present, safe_name
from mm_keras.text_specs import EmbeddedText as EmbeddedText
from mm_keras.text_specs import EmbedderSpec as EmbedderSpec
from mm_keras.text_specs import SavedModelText as SavedModelText
from mm_keras.text_specs import StringText as StringText
from mm_keras.text_specs import TextSpec as TextSpec
from mm_keras.text_specs import TokenText as TokenText
from mm_keras.text_specs import load_text
from mm_keras.text_specs import make_saved_model_text as make_saved_model_text
from mm_keras.tokenizer_spec import TokenizerSpec
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.checksums import DamagedFileError, check, enter, read_json

FEATURES_FILE = "features.json"
FEATURES_VERSION = 1


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """The size of the images that the image tower sees, and how pictures are brought to it.

    Attributes:
        size: (height, width) in pixels, at least 8 each.
        fit: what happens to a picture of another aspect ratio. "crop" keeps the central 7/8 of the largest part that has the
            right ratio, as ImageNet's towers are evaluated; it keeps more where 7/8 would be fewer pixels than `size`.
            "stretch" distorts the whole picture, so that nothing is cut off: for products and documents.

    Raises:
        ValueError: for a size or fit that does not exist.
    """

    size: tuple[int, int]
    fit: str = "crop"

    def __post_init__(self):
        if len(self.size) != 2 or min(self.size) < 8:
            raise ValueError(f"image size is (height, width), at least 8 pixels each. Received: {self.size}")
        if self.fit not in ("crop", "stretch"):
            raise ValueError(f"fit is 'crop' or 'stretch'. Received: {self.fit!r}")


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """The inputs of a model and the labels that it tells apart.

    Attributes:
        image: the size of the image; None for a model without an image.
        texts: the text fields that the model sees.
        labels: the names of the labels; a label's id is its place here.
        multi_label: True where an example may have any number of labels, False where it has exactly one.

    Example:
        >>> words = TokenizerSpec("words", ("[PAD]", "[UNK]", "mug", "lamp"))
        >>> spec = FeatureSpec(ImageSpec((224, 224)), (TokenText("title", words, 16),), ("kitchen", "light"), False)
        >>> spec.modalities
        ('image', 'title')

    Raises:
        ValueError: for neither an image nor a text field, or fewer than two labels.
    """

    image: ImageSpec | None
    texts: tuple[TextSpec, ...]
    labels: tuple[str, ...]
    multi_label: bool

    def __post_init__(self):
        if not self.modalities:
            raise ValueError("a model needs an image, a text field, or both")
        if len(self.labels) < 2:
            raise ValueError(f"a classifier needs at least two labels. Received: {self.labels}")
        keys = [safe_name(modality) for modality in self.modalities]
        if len(set(keys)) < len(keys):
            raise ValueError(f"two inputs have one name inside of the model: {[*zip(self.modalities, keys, strict=True)]}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The image, if any, then the text fields."""
        return ((IMAGE,) if self.image else ()) + tuple(text.name for text in self.texts)

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """All tensors of `features` in a batch: name -> (shape without the batch axis, dtype)."""
        inputs: dict[str, tuple[tuple[int, ...], str]] = {}
        if self.image:
            inputs[IMAGE] = ((*self.image.size, 3), "float32")
        for text in self.texts:
            inputs |= dict(zip(text.batch_names().values(), text.inputs().values(), strict=True))
        inputs.update({present(modality): ((), "bool") for modality in self.modalities})
        return inputs

    def text(self, modality: str) -> TextSpec:
        """The text field of this name among the modalities."""
        return next(text for text in self.texts if text.name == modality)

    def modality_of(self, name: str) -> str:
        """The modality that a column's name means: a text column "image" is "text/image" where the model sees no picture.

        Raises:
            ValueError: for a name that no input of the model has; it lists those that there are.
        """
        name = input_name(name) if name not in self.modalities else name
        if name not in self.modalities:
            raise ValueError(f"the model has no input {name!r}; its inputs are {list(self.modalities)}")
        return name

    def only(self, modalities: Iterable[str]) -> FeatureSpec:
        """The same labels with some of the modalities, such as those of a baseline that sees the image alone.

        Raises:
            ValueError: for a modality that these features do not have, or for none.
        """
        names = {self.modality_of(name) for name in modalities}
        texts = tuple(text for text in self.texts if text.name in names)
        return dataclasses.replace(self, image=self.image if IMAGE in names else None, texts=texts)

    def save(self, folder: Path, with_models: bool = True) -> None:
        """Writes features.json and the files that it refers to.

        These are vocabulary_<n>.* for each distinct tokenizer (see `TokenizerSpec.save`), and the folder text_model_<n>/ for
        each distinct frozen embedder: a copy of its SavedModel.

        Args:
            folder: an existing folder.
            with_models: False leaves out the copies of SavedModels. The features can still be loaded, but no batches can be
                made with them.
        """
        tokenizers = list(dict.fromkeys(text.tokenizer for text in self.texts if isinstance(text, TokenText)))
        embedders = list(dict.fromkeys(text.embedder for text in self.texts if isinstance(text, SavedModelText)))
        for index, embedder in enumerate(embedders):
            if with_models and not embedder.trainable:
                shutil.copytree(embedder.path, folder / f"text_model_{index}")
                enter(folder / f"text_model_{index}")
        texts = []
        for text in self.texts:
            if isinstance(text, TokenText):
                encoding = {"tokenizer": tokenizers.index(text.tokenizer), "max_tokens": text.max_tokens}
            else:
                encoding = {"embedder": embedders.index(text.embedder)}
            texts.append({"field": text.field, "key": text.key, "kind": text.kind} | encoding)
        content = {
            "version": FEATURES_VERSION,
            "image": dataclasses.asdict(self.image) if self.image else None,
            "texts": texts,
            "tokenizers": [tokenizer.save(folder / f"vocabulary_{index}") for index, tokenizer in enumerate(tokenizers)],
            "embedders": [{"width": embedder.width, "trainable": embedder.trainable} for embedder in embedders],
            "multi_label": self.multi_label,
            "labels": self.labels,
        }
        write_text(folder / FEATURES_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> FeatureSpec:
        """Loads the features from a folder that `save` wrote into.

        Raises:
            FileNotFoundError: if the folder holds no features.json: it is no run folder.
            DamagedFileError: if the file, or one that it refers to, is not what was written. SavedModels are not checked.
            ValueError: if the file is of another version.
        """
        path = folder / FEATURES_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: {str(folder)!r} is no run folder, or nothing was trained in it yet"
            )
        content = read_json(path)
        version = content.get("version") if isinstance(content, dict) else None
        if version != FEATURES_VERSION:
            raise ValueError(
                f"{path} is of version {version}, this release reads version {FEATURES_VERSION}: train the run again, or use "
                "the release that wrote it"
            )
        check(*sorted(folder.glob("vocabulary_*")))
        try:
            return cls._of(content, folder)
        except (KeyError, TypeError, IndexError, AttributeError, UnicodeDecodeError) as error:
            raise DamagedFileError(
                f"{path}, or a vocabulary beside it, is damaged: {type(error).__name__}: {error}. Put back a copy, or train "
                "the run again"
            ) from error

    @classmethod
    def _of(cls, content: dict, folder: Path) -> FeatureSpec:
        made_by = {
            "tokenizer": [
                TokenizerSpec.load(folder / f"vocabulary_{index}", **entry) for index, entry in enumerate(content["tokenizers"])
            ],
            "embedder": [
                EmbedderSpec(str(folder / f"text_model_{index}"), **entry) for index, entry in enumerate(content["embedders"])
            ],
        }
        image = content["image"]
        return cls(
            image=ImageSpec(tuple(image["size"]), image["fit"]) if image else None,
            texts=tuple(load_text(**entry, made_by=made_by) for entry in content["texts"]),
            labels=tuple(content["labels"]),
            multi_label=content["multi_label"],
        )
