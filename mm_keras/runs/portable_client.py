"""Asks an exported model where neither TensorFlow nor mm_keras is: needs NumPy, Pillow, and onnxruntime or ai-edge-litert.

    python client.py --image=photo.jpg --title="Solid oak side table"

`export` puts this file beside the model as client.py. What it does to pictures and texts stands in preprocess.json, for clients
in other languages; WordPiece texts need the package `tokenizers`, too.
"""

from __future__ import annotations

import argparse
import io
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_CENTRE = 0.875  # the fraction of a side that a crop keeps


class Client:
    """A model in a folder that `mm-keras export --format=onnx` or `--format=litert` wrote.

    Args:
        folder: with the model, and preprocess.json.

    Example:
        >>> client = Client("runs/products/export_onnx/1")
        >>> client({"image": Path("photo.jpg").read_bytes(), "title": "Solid oak"})[0]
        ('Furniture', 0.93)
    """

    def __init__(self, folder: str | Path):
        self.facts = json.loads(Path(folder, "preprocess.json").read_text("utf-8"))
        self._run = open_model(Path(folder, self.facts["model"]))
        tokenizers = [make_tokenizer(facts) for facts in self.facts["tokenizers"]]
        self._texts = [(text, tokenizers[text["tokenizer"]]) for text in self.facts["texts"]]

    def __call__(self, example: Mapping[str, bytes | str]) -> list[tuple[str, float]]:
        """(label, probability) of one example, the most probable first; an input that is left out is missing."""
        scores = self.scores(example)
        return [(self.facts["labels"][index], float(scores[index])) for index in np.argsort(-scores, kind="stable")]

    def scores(self, example: Mapping[str, bytes | str]) -> np.ndarray:
        """The probabilities float32 [num_labels] of one example.

        Raises:
            ValueError: for an input that the model does not have, or a picture that cannot be read.
        """
        return self._run(self.inputs(example))[0]

    def inputs(self, example: Mapping[str, bytes | str]) -> dict[str, np.ndarray]:
        """One example as the model takes it, a batch of one: pixels, token ids, and which inputs are there."""
        known = [*(["image"] if self.facts["image"] else []), *(text["field"] for text in self.facts["texts"])]
        for name in example:
            if name not in known:
                raise ValueError(f"the model has no input {name!r}; its inputs are {known}")
        inputs: dict[str, np.ndarray] = {}
        if spec := self.facts["image"]:
            data = example.get("image") or b""
            pixels = fit(decode(data), spec["size"], spec["fit"]) if data else np.zeros((*spec["size"], 3))
            inputs["image"] = pixels.astype("float32")[None]
            inputs[spec["present"]] = np.array([bool(data)])
        for text, tokenize in self._texts:
            stripped = str(example.get(text["field"]) or "").strip()
            ids = tokenize(stripped, text["max_tokens"]) if stripped else []
            token_ids = np.zeros((1, text["max_tokens"]), "int32")
            token_ids[0, : len(ids)] = ids
            inputs[text["token_ids"]] = token_ids
            inputs[text["padding_mask"]] = np.arange(text["max_tokens"])[None] < len(ids)
            inputs[text["present"]] = np.array([bool(stripped)])
        return inputs


def open_model(path: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Opens a model as a function: inputs by name, of a batch of one -> probabilities float32 [1, num_labels]."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(["scores"], dict(inputs))[0]
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=path.read_bytes()).get_signature_runner()
    return lambda inputs: runner(**inputs)["scores"]


def decode(data: bytes) -> np.ndarray:
    """A picture as uint8 [height, width, 3]: its first frame, on white, upright as its EXIF block says."""
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's plugins raise many kinds
        raise ValueError(f"the picture cannot be read: {error}") from error


def fit(image: np.ndarray, size: Sequence[int], how: str) -> np.ndarray:
    """Brings uint8 [height, width, 3] to float [*size, 3]: the whole picture ("stretch") or its centre ("crop")."""
    if how == "crop":
        shape = np.array(image.shape[:2])
        aspect = size[0] / size[1]
        largest = np.minimum(shape, _scaled(shape[::-1], np.array([aspect, 1 / aspect])))
        window = np.maximum(_scaled(largest, _CENTRE), np.minimum(largest, size))
        top, left = (shape - window) // 2
        image = image[top : top + window[0], left : left + window[1]]
    shape = image.shape[:2]
    shrinks = any(2 * old >= 3 * new for old, new in zip(shape, size, strict=True))
    enlarges = any(old < new for old, new in zip(shape, size, strict=True))
    kind = _triangle if enlarges or not shrinks else _area
    rows, columns = (kind(old, new, antialias=shrinks) for old, new in zip(shape, size, strict=True))
    return np.einsum("ih,hwc,jw->ijc", rows, image.astype("float32"), columns, optimize=True)


def _scaled(lengths: np.ndarray, scale) -> np.ndarray:
    return np.maximum(1, np.round(lengths.astype("float32") * np.float32(scale)).astype(int))


def _triangle(old: int, new: int, antialias: bool) -> np.ndarray:
    """The weights [new, old] of bilinear interpolation; with `antialias`, over as many pixels as a new one covers."""
    scale = old / new
    reach = max(scale, 1.0) if antialias else 1.0
    centres = np.clip((np.arange(new) + 0.5) * scale - 0.5, 0, old - 1) if reach == 1 else (np.arange(new) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(old)) / reach)
    return (weights / weights.sum(axis=1, keepdims=True)).astype("float32")


def _area(old: int, new: int, antialias: bool) -> np.ndarray:
    """The weights [new, old] of means over the area that a new pixel covers."""
    del antialias
    scale = old / new
    first = np.arange(new)[:, None] * scale
    overlap = np.minimum(first + scale, np.arange(old) + 1) - np.maximum(first, np.arange(old))
    return (np.maximum(overlap, 0) / scale).astype("float32")


def make_tokenizer(facts: Mapping) -> Callable[[str, int], list[int]]:
    if facts["kind"] == "wordpiece":
        return _word_pieces(facts)
    if facts["kind"] == "words":
        ids = {word: index for index, word in enumerate(facts["vocabulary"])}
        spaceless = [tuple(pair) for pair in facts["spaceless"]]
        return lambda text, most: [ids.get(word, 1) for word in _words(text, spaceless)][:most]

    def refuse(text: str, most: int) -> list[int]:
        raise ValueError(f"this client does not know {facts['kind']} tokenizers ({facts['family']}): give the model token ids")

    return refuse


def _words(text: str, spaceless: Sequence[tuple[int, int]]) -> list[str]:
    """Lower-cased runs of letters, marks and digits; characters of scripts without spaces are words of their own."""
    words, goes_on = [], False
    for character in text.lower():
        kind = unicodedata.category(character)[0]
        alone = any(first <= ord(character) <= last for first, last in spaceless)
        if kind not in "LMN" and not alone:
            goes_on = False
        elif goes_on and not alone and (goes_on is True or kind == "M"):
            words[-1] += character
        else:
            words.append(character)
            goes_on = "marks" if alone else True
    return words


def _word_pieces(facts: Mapping) -> Callable[[str, int], list[int]]:
    from tokenizers import BertWordPieceTokenizer

    vocabulary = {piece: index for index, piece in enumerate(facts["vocabulary"])}
    pieces = BertWordPieceTokenizer(vocabulary, lowercase=facts["lowercase"], strip_accents=facts["strip_accents"])
    start, end = facts["start_id"], facts["end_id"]

    def tokenize(text: str, most: int) -> list[int]:
        ids = pieces.encode(text, add_special_tokens=False).ids[: most - 2]
        return [start, *ids, end] if ids else []

    return tokenize


def main() -> None:
    client = Client(Path(__file__).parent)
    parser = argparse.ArgumentParser(description="Prints the most probable labels of one example.")
    fields = [text["field"] for text in client.facts["texts"]]
    if client.facts["image"]:
        parser.add_argument("--image", metavar="FILE", help="a picture")
    for number, field in enumerate(fields):
        parser.add_argument(f"--{field}", dest=f"text_{number}", metavar="TEXT", help=f"the text field {field!r}")
    options = vars(parser.parse_args())
    example = {field: options[f"text_{number}"] for number, field in enumerate(fields)}
    if options.get("image"):
        example["image"] = Path(options["image"]).read_bytes()
    for label, probability in client({name: value for name, value in example.items() if value})[:5]:
        print(f"{probability:.4f}  {label}")


if __name__ == "__main__":
    main()
