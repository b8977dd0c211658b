"""What tests of both packages need."""

import gc
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import iter_records
from tfrecords_tools.progress import showing

gc.set_threshold(50_000, 20, 50)  # what traced graphs leave is looked through too often otherwise: a tenth of the time


@pytest.fixture(autouse=True, scope="session")
def shown_lines():
    """What is logged is printed, as the programs print it."""
    with showing():
        yield


@pytest.fixture(scope="session")
def encode_image():
    """A function: pixels (array or Pillow image) -> encoded bytes."""

    def encode(image, kind="JPEG", **options) -> bytes:
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def read_split():
    """A function: (dataset folder, split) -> its decoded records, in order."""

    def read(folder, split):
        shards = sorted(Path(folder).glob(f"{split}-*.tfrecord"))
        return [decode_example(serialized) for shard in shards for serialized in iter_records(shard)]

    return read


@pytest.fixture
def call(capsys):
    """A function: (a program's main, arguments) -> exit status, standard output, standard error."""

    def apply(main, *arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's own way to end
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return apply
