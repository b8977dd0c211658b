"""Examples with drawn pictures, for datasets of a few tests each."""

from collections.abc import Callable

import numpy as np

from tfrecords_tools.sources.example import SourceExample


def draw_examples(
    number: int, describe: Callable[..., dict[str, object]], size: tuple[int, int] = (20, 20), brightest: int = 255
) -> list[SourceExample]:
    """Examples "e000", "e001", … that are the same every time.

    Args:
        number: of examples.
        describe: `(index, draw) -> the other fields` of an example; `draw()` gives random pixels, uint8 [height, width, 3].
        size: height and width of the pixels.
        brightest: what the pixels stay below.
    """
    rng = np.random.default_rng(0)

    def draw():
        return rng.integers(0, brightest, (*size, 3), np.uint8)

    return [SourceExample(id=f"e{index:03d}", where=f"rows:{index}", **describe(index, draw)) for index in range(number)]
