"""What a model's inputs are called: for people by their own names, and inside by names that every framework takes.

A text field has the name of its column, which may be "Review Text", "标题", "a/b" or "2nd". People see and give that name
everywhere: in configs, tables, messages, and what they predict. Keras' layers, TensorFlow's signatures and folders take few
names, so that inside, and as inputs of an exported model, a field has the name that `safe_name` makes of it:

    title, class_description      as they are
    Review Text                   review_text_42d93221     letters, digits and "_" of the name, and a checksum of all of it
    标题                           text_c3405f8c

features.json, which goes with every run and every export, lists both names of each text field.
"""

from __future__ import annotations

import hashlib
import keyword
import re

IMAGE = "image"
ALL_TEXTS, ALL_INPUTS = "all texts", "all inputs"  # what reports call several modalities
_TEXT = "text/"  # begins the names of text fields whose own names mean something else
_PLAIN = re.compile(r"[a-z][a-z0-9_]{0,59}")  # TensorFlow takes "title" and "Title" for one name
# Names that fusions give to their layers, beside the names of modalities, or that functions give to their own arguments.
_TAKEN = frozenset(
    (
        *("blocks", "concatenated_embeddings", "embeddings_and_products", "gate_inputs", "gate_scores", "gates"),
        *("pooled_states", "args", "kwargs", "model", "self", "training"),
    )
)
# What models append to a modality's name where that name stands alone as well, or before another ending.
_ENDINGS = re.compile(r".*_(and|attention|dropout|factor|hidden|inner|norm|outer|pool|present|projection)", re.DOTALL)


def input_name(field: str) -> str:
    """The name of a text field among a model's inputs, for people: its own, unless that means something else.

    Example:
        >>> input_name("Review Text"), input_name("image"), input_name("text/image")
        ('Review Text', 'text/image', 'text/text/image')
    """
    return _TEXT + field if field in (IMAGE, ALL_TEXTS, ALL_INPUTS) or field.startswith(_TEXT) else field


def column_name(name: str) -> str:
    """The name of the column that an input was trained on: the inverse of `input_name`; a picture's may be called otherwise.

    Example:
        >>> column_name("Review Text"), column_name("text/image"), column_name("text/text/image")
        ('Review Text', 'image', 'text/image')
    """
    return name.removeprefix(_TEXT)


def safe_name(name: str) -> str:
    """The name of an input inside of models and exports: an identifier that no part of a model has.

    It depends on the name alone. Names that differ only in case, or in characters that it drops, stay apart by a checksum. A
    safe name is its own safe name.

    Args:
        name: "image", or what `input_name` gives.

    Example:
        >>> safe_name("title"), safe_name("title:en"), safe_name("2nd")
        ('title', 'title_en_bf8c2280', 'text_2nd_c21365c7')
    """
    if _PLAIN.fullmatch(name) and name not in _TAKEN and not keyword.iskeyword(name) and not _ENDINGS.fullmatch(name):
        return name
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:40].rstrip("_")
    words = words if words[:1].isalpha() else "_".join(filter(None, ("text", words)))
    return f"{words}_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def present(modality: str) -> str:
    """The name of a modality's presence flag in a batch: "title" -> "title_present"."""
    return f"{safe_name(modality)}_present"
