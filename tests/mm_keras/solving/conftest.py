import numpy as np
import pytest
from scipy.sparse import csr_array

from mm_keras.solving.blocks import Block, unit_rows
from mm_keras.solving.rows import Rows


@pytest.fixture(scope="session")
def draw_rows():
    """A function: options -> rows of two embeddings and the words of the second one; each tells a part of the label."""

    def draw(count=240, classes=4, multi_label=False, missing=0.0, noise=(1.0, 1.0), seed=0) -> Rows:
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % classes
        targets = np.eye(classes, dtype="float32")[labels]
        if multi_label:
            targets = np.maximum(targets, np.eye(classes, dtype="float32")[rng.integers(0, classes, count)])
        blocks = []
        present = rng.random((count, 2)) >= missing
        present[~present.any(axis=1)] = True
        for number, (loudness, width) in enumerate(zip(noise, (24, 16), strict=True)):
            centres = np.random.default_rng(100 + number).normal(size=(classes, width))
            values = unit_rows(targets @ centres + loudness * rng.normal(size=(count, width)))
            blocks.append(Block(f"part {number}", number, values * present[:, number : number + 1]))
        words = (targets @ np.eye(classes, 12) + (rng.random((count, 12)) < 0.3)) * present[:, 1:]
        blocks.append(Block("part 1 words", 1, csr_array(unit_rows(words))))
        return Rows(blocks, present, targets, np.ones(count, np.float32), multi_label, rng.permutation(count) % 5)

    return draw
