"""The scripts that are written without spaces between words, whose texts are split by character.

Chinese, Japanese, Thai, Lao, Khmer, Burmese and their neighbours: a title in one of them would be one single word, which no
other title has. The original BERT splits Han so; the other scripts need it as much. Korean has spaces, and is left alone.
A mark that is written above, below or around a letter stays with its letter.

The characters are spelled out here, so that Python and TensorFlow, in training and in a server of another version, split alike.
"""

from __future__ import annotations

import re

# First and last characters of Unicode's blocks, without their decimal digits, which stay together as numbers.
RANGES = (
    *((0x0E00, 0x0E4F), (0x0E5A, 0x0ECF), (0x0EDA, 0x0EFF)),  # Thai, Lao
    *((0x1000, 0x103F), (0x104A, 0x108F), (0x109A, 0x109F), (0xA9E0, 0xA9EF), (0xA9FA, 0xA9FF), (0xAA60, 0xAA7F)),  # Myanmar
    *((0x1780, 0x17DF), (0x17EA, 0x17FF)),  # Khmer
    *((0x1950, 0x197F), (0x1980, 0x19CF), (0x19DE, 0x19DF), (0x1A20, 0x1A7F), (0x1AA0, 0x1AAF)),  # Tai Le, Tai Lue, Tai Tham
    *((0x1B00, 0x1B4F), (0x1B5A, 0x1B7F), (0xA980, 0xA9CF), (0xA9DA, 0xA9DF)),  # Balinese, Javanese
    *((0x3005, 0x3007), (0x3021, 0x3029), (0x3031, 0x3035), (0x3038, 0x303C)),  # Han: repetitions and numbers
    *((0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F)),  # Hiragana, Katakana
    *((0x3105, 0x312F), (0x31A0, 0x31BF), (0xA000, 0xA48F)),  # Bopomofo, Yi
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FA1F), (0x30000, 0x3347F)),  # Han
)
SPACELESS = "".join(f"{chr(first)}-{chr(last)}" for first, last in RANGES)  # the inside of a character class
_SPACELESS = re.compile(f"[{SPACELESS}]")


def is_spaceless(character: str) -> bool:
    """Whether a character belongs to one of these scripts.

    Example:
        >>> [is_spaceless(character) for character in "杯カกa한"]
        [True, True, True, False, False]
    """
    return bool(_SPACELESS.fullmatch(character))
