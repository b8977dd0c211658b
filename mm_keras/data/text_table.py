"""The distinct texts of a field, and which of them each record has, from the dataset's index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow


class TextTable:
    """Each distinct text once, in the order in which they occur first. Row 0 is the empty text of records without a text.

    Args:
        column: the list of the texts of each record.

    Attributes:
        texts: binary [number of distinct texts + 1].
        counts: int64 [N], the number of texts of each record.
        present: bool [number of distinct texts + 1]; a blank text counts as missing.
    """

    def __init__(self, column: pyarrow.ChunkedArray):
        import pyarrow as pa
        import pyarrow.compute as pc

        self.counts = pc.list_value_length(column).to_numpy().astype(np.int64)
        self._first = np.cumsum(self.counts) - self.counts
        encoded = pc.dictionary_encode(pc.list_flatten(column).cast(pa.large_binary())).unify_dictionaries()
        indices = [chunk.indices.to_numpy() for chunk in encoded.chunks]
        self._rows = np.concatenate([*indices, [0]]).astype(np.int64) + 1  # ends with a filler, which keeps `rows` in range
        distinct = [encoded.chunk(0).dictionary] if encoded.num_chunks else []
        self.texts = pa.concat_arrays([pa.array([b""], pa.large_binary()), *distinct])
        blank = pc.equal(pc.binary_length(pc.ascii_trim_whitespace(self.texts.cast(pa.large_string()))), 0)
        self.present = ~blank.to_numpy(zero_copy_only=False)

    def rows(self, records: np.ndarray, drawn: np.ndarray | float = 0.0) -> np.ndarray:
        """Picks one text of each record.

        Args:
            records: int64 [B], numbers of records.
            drawn: float [B] within [0, 1): which text of a record is picked; 0 is the first, and 0.5 the one in the middle.

        Returns:
            int64 [B], rows of `texts`.
        """
        index = (drawn * self.counts[records]).astype(np.int64)
        return np.where(self.counts[records] > 0, self._rows[self._first[records] + index], 0)
