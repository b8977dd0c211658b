"""A catalogue of products that is drawn at random, to try everything without a download: pictures, titles, descriptions.

A class is a pair of an *item* that only the picture shows (a mug, a lamp, …) and a *material* that only the text names (oak,
steel, …). So neither modality alone can tell the class, and `ceilings` computes how far each can get. Brand, colour and
background are drawn independently of the class.

The catalogue has the noise of real ones. These are the fractions of the examples:

    title missing                .01        title present but irrelevant         .05
    description missing          .34        description present but irrelevant   .05
    relevant title that does not name the material                               .30
    wrong label (another class at random; with multi_label drawn for each tag)   .02
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import cv2
import numpy as np

from tfrecords_tools.sources.command import SourceCommand
from tfrecords_tools.sources.example import Source, SourceExample

ITEMS = ("bottle", "chair", "clock", "lamp", "mug")
MATERIALS = {
    "glass": ("blown glass", "crystal", "clear glass"),
    "oak": ("solid oak", "oak", "oiled hardwood"),
    "steel": ("stainless steel", "brushed steel", "metal"),
    "wool": ("merino", "felted wool", "knitted wool"),
}
RATES = {
    "title_missing": 0.01,
    "title_irrelevant": 0.05,
    "title_silent": 0.30,
    "description_missing": 0.34,
    "description_irrelevant": 0.05,
    "wrong_label": 0.02,
}
_BRANDS = ("Nordvik", "Hallow", "Pinta", "Ostra", "Kelling", "Maru", "Bo&Co", "Vesper", "Tallow", "Quill")
_ADJECTIVES = ("classic", "modern", "handmade", "small", "large", "vintage", "everyday", "limited", "new", "signature")
_OFF_TOPIC = (
    "IMG {n} from our holiday",
    "Subscribe to the newsletter for offers",
    "Photo {n}, all rights reserved",
    "Match report: {n} goals in the second half",
    "Best of the web, page {n}",
)
_FILLERS = (
    "Designed by {brand} for small homes.",
    "Delivered in {n} working days.",
    "Please note that colours may differ from the picture.",
    "A favourite of our customers since {n} weeks.",
    "Returned goods are accepted within {n} days.",
)


def make_source(num_examples: int = 3000, seed: int = 0, multi_label: bool = False) -> Source:
    """Declares the sample as a source.

    Args:
        num_examples: how many examples to draw. More examples begin with the same ones.
        seed: another seed draws other examples.
        multi_label: whether each example is labelled with two tags, its item and its material, instead of one class.

    Raises:
        ValueError: if `num_examples` is not positive.

    Example:
        >>> pack(make_source(num_examples=500), "data/sample")
    """
    if num_examples < 1:
        raise ValueError(f"num_examples must be positive. Received: {num_examples}")
    return Source(
        name="sample",
        examples=lambda: iter_examples(num_examples, seed, multi_label),
        text_fields={"title": False, "description": False},
        multi_label=multi_label,
        options={"num_examples": num_examples, "seed": seed, "multi_label": multi_label},
        ceilings={} if multi_label else ceilings(),
    )


def iter_examples(num_examples: int, seed: int, multi_label: bool = False) -> Iterator[SourceExample]:
    """Yields the examples. Each of them depends only on the seed and its index."""
    classes = [(item, material) for item in ITEMS for material in MATERIALS]
    for index in range(num_examples):
        rng = np.random.default_rng((seed, index))
        item, material = classes[index % len(classes)]
        brand = _BRANDS[rng.integers(len(_BRANDS))]
        yield SourceExample(
            id=f"sample-{seed}-{index:06d}",
            where=f"sample:{index}",
            image=_draw(item, rng),
            texts={"title": [_title(material, brand, rng)], "description": [_description(material, brand, rng)]},
            labels=_tags(item, material, rng) if multi_label else [_label(item, material, classes, rng)],
        )


def ceilings() -> dict[str, float]:
    """The expected accuracy of the best possible classifier, by the modalities that it sees.

    A modality that shows an attribute leaves fewer classes, among which the classifier has to guess. Let there be I items and M
    materials, and let the text name the material with probability k. Then the picture alone gives the true class with
    probability 1/M, the text alone with k/I + (1-k)/(I·M), and both with k + (1-k)/M. If a guess is the true class with
    probability p, and a label is wrong with probability w, over C classes, then the guess equals the label with probability
    (1-w)·p + w·(1-p)/(C-1). On a finite split a classifier may exceed this by chance.
    """
    num_items, num_materials = len(ITEMS), len(MATERIALS)
    num_classes, wrong = num_items * num_materials, RATES["wrong_label"]

    def noisy(p: float) -> float:
        return round((1 - wrong) * p + wrong * (1 - p) / (num_classes - 1), 4)

    def text(tells: float) -> float:
        return noisy(tells / num_items + (1 - tells) / num_classes)

    title = (1 - RATES["title_missing"] - RATES["title_irrelevant"]) * (1 - RATES["title_silent"])
    description = 1 - RATES["description_missing"] - RATES["description_irrelevant"]
    either = 1 - (1 - title) * (1 - description)
    return {
        "image": noisy(1 / num_materials),
        "title": text(title),
        "description": text(description),
        "all texts": text(either),
        "all inputs": noisy(either + (1 - either) / num_materials),
    }


def _label(item: str, material: str, classes: list, rng: np.random.Generator) -> str:
    if rng.random() < RATES["wrong_label"]:
        other_classes = [pair for pair in classes if pair != (item, material)]
        item, material = other_classes[rng.integers(len(other_classes))]
    return f"{material} {item}"


def _tags(item: str, material: str, rng: np.random.Generator) -> list[str]:
    tags = []
    for true, names in ((item, ITEMS), (material, tuple(MATERIALS))):
        wrong = [name for name in names if name != true]
        tags.append(wrong[rng.integers(len(wrong))] if rng.random() < RATES["wrong_label"] else true)
    return tags


def _title(material: str, brand: str, rng: np.random.Generator) -> str:
    fate = rng.random()
    adjective = _pick(_ADJECTIVES, rng)
    if fate < RATES["title_missing"]:
        return ""
    if fate < RATES["title_missing"] + RATES["title_irrelevant"]:
        return _pick(_OFF_TOPIC, rng).format(n=rng.integers(2, 99))
    if rng.random() < RATES["title_silent"]:
        return f"{brand} {adjective} series, no. {rng.integers(2, 99)}"
    phrase = _pick(MATERIALS[material], rng)
    return _pick((f"{brand} {adjective}, {phrase}", f"{phrase.capitalize()}: the {adjective} {brand}"), rng)


def _description(material: str, brand: str, rng: np.random.Generator) -> str:
    fate = rng.random()
    if fate < RATES["description_missing"]:
        return ""
    sentences = [_pick(_FILLERS, rng).format(brand=brand, n=rng.integers(2, 99)) for _ in range(rng.integers(1, 4))]
    if fate < RATES["description_missing"] + RATES["description_irrelevant"]:
        sentences.append(_pick(_OFF_TOPIC, rng).format(n=rng.integers(2, 99)) + ".")
    else:
        phrase = _pick(MATERIALS[material], rng)
        sentences.append(_pick((f"Made of {phrase}.", f"The finish is {phrase}.", f"In {phrase}, {brand} style."), rng))
    rng.shuffle(sentences)
    return " ".join(sentences)


def _pick(options, rng: np.random.Generator) -> str:
    return options[rng.integers(len(options))]


def _box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _ellipse(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    angle = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    return np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], axis=1)


# The polygons of each item, within [-1, 1]², painted one over the other. The tone 1 is the colour of the item, and 0 that of
# the background.
_SHAPES = {
    "bottle": [(_box(-0.4, -0.2, 0.4, 1.0), 1.0), (_box(-0.15, -0.8, 0.15, -0.2), 0.85), (_box(-0.2, -1, 0.2, -0.8), 0.6)],
    "chair": [
        (_box(-0.6, -1.0, -0.4, 1.0), 0.8),
        (_box(-0.6, -0.9, -0.35, 0.1), 1.0),
        (_box(-0.6, 0.1, 0.6, 0.3), 1.0),
        (_box(0.4, 0.3, 0.6, 1.0), 0.8),
    ],
    "clock": [
        (_ellipse(0, 0, 0.9, 0.9), 1.0),
        (_ellipse(0, 0, 0.7, 0.7), 0.3),
        (_box(-0.06, -0.6, 0.06, 0), 1.0),
        (_box(0, -0.06, 0.45, 0.06), 1.0),
    ],
    "lamp": [
        (np.array([(-0.35, -1.0), (0.35, -1.0), (0.8, -0.1), (-0.8, -0.1)]), 1.0),
        (_box(-0.07, -0.1, 0.07, 0.85), 0.7),
        (_box(-0.5, 0.8, 0.5, 1.0), 0.85),
    ],
    "mug": [(_ellipse(0.6, 0.1, 0.4, 0.45), 0.85), (_ellipse(0.6, 0.1, 0.22, 0.27), 0.0), (_box(-0.7, -0.6, 0.6, 0.8), 1.0)],
}


def _draw(item: str, rng: np.random.Generator) -> bytes:
    """A JPEG of 96–128 pixels a side: the item turned, moved, scaled and coloured at random on a noisy background."""
    height, width = (int(side) for side in rng.integers(96, 129, 2))
    background = rng.integers(90, 230, 3).astype(np.float64)
    colour = (background + rng.choice((-1, 1), 3) * rng.integers(50, 90, 3)).clip(0, 255)
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = background
    for _ in range(rng.integers(0, 4)):  # clutter
        ends = rng.integers(0, 128, 4).tolist()
        cv2.line(pixels, ends[:2], ends[2:], rng.integers(60, 255, 3).tolist(), int(rng.integers(1, 4)), cv2.LINE_AA)
    angle, scale = rng.uniform(-0.45, 0.45), rng.uniform(0.28, 0.40) * min(height, width)
    turn = scale * np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])
    centre = np.array([width, height]) * rng.uniform(0.42, 0.58, 2)
    for polygon, tone in _SHAPES[item]:
        shade = background + tone * (colour - background)
        corners = np.round((polygon @ turn + centre) * 16).astype(np.int32)
        cv2.fillPoly(pixels, [corners], shade.tolist(), cv2.LINE_AA, shift=4)
    noise = rng.integers(-12, 13, (height, width, 1), np.int16)
    pixels = (pixels + noise).clip(0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num_examples", type=int, default=3000, help="default: 3000")
    parser.add_argument("--sample_seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--multi_label", action="store_true", help="two tags an example instead of one class")


def _source_of(options: argparse.Namespace) -> Source:
    return make_source(options.num_examples, options.sample_seed, options.multi_label)


COMMAND = SourceCommand(
    name="sample",
    help="the embedded sample: a drawn catalogue",
    epilog="""example:
  tfrecords-tools pack sample --output=data/sample
""",
    add_arguments=_add_arguments,
    make_source=_source_of,
)
