"""A BERT so small that it is written in a moment."""

from pathlib import Path

from mm_keras.studies import drawn_encoders


def write_tiny_bert(folder: Path) -> None:
    """Writes a Hugging Face folder of a BERT: 2 layers, 2 heads, 32 wide, 24 positions, that knows a few words."""
    drawn_encoders.write_tiny_bert(folder, ["cafe", "oak", "mug", ",", "steel", "the", "##s"])
