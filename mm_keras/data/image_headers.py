"""Reads what the headers of encoded pictures say, in the graph: the size before anything is decoded, EXIF, transparency.

TensorFlow's decoders check none of this: they allocate what a header asks for, leave a photo on its side, put transparent
pixels on black or whatever colour lies beneath, and end the process at an animated WebP. So a picture is read here first, byte
by byte, and of an animation only the first frame is handed on. The layouts: ITU T.81 annex B (JPEG), PNG third edition, GIF89a,
RFC 9649 (WebP), BITMAPINFOHEADER (BMP).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

DAMAGED, UNKNOWN, TOO_LARGE, UNSUPPORTED = 1, 2, 3, 4
PROBLEMS = (
    "",
    "the picture is damaged or cut off",
    "the picture is no JPEG, PNG, GIF, WebP or BMP; convert it to one of them",
    "the picture has too many pixels; shrink it",
    "the picture is a BMP with a palette or compression, or an animation that begins with a part of it; convert it to PNG",
)
"""What is wrong with a picture, by number; 0: nothing."""

_MAX_STEPS = 2**16  # blocks of a file that are looked through; a photo has dozens
_OCTETS = [bytes([value]) for value in range(256)]


aside = functools.partial(tf.function, autograph=False, experimental_attributes={"_noinline": True})
"""Decorates a function that the graph calls instead of inlining it: what is inlined takes time even in a branch not taken."""


class Header(NamedTuple):
    """What a picture's header says.

    Attributes:
        problem: int32 [], an index in `PROBLEMS`.
        size: int64 [2], height and width in pixels of what is decoded.
        exif: string [], the EXIF block, beginning with its TIFF header; empty if there is none.
        still: string [], the picture as it is to be decoded: of an animation the first frame alone.
        channels: int32 [], 4 if the decoder finds an alpha channel, otherwise 3.
    """

    problem: tf.Tensor
    size: tf.Tensor
    exif: tf.Tensor
    still: tf.Tensor
    channels: tf.Tensor


def kind_of(data: tf.Tensor) -> tf.Tensor:
    """The format of a picture, string [], as int32 []: an index in `READERS`, or `len(READERS)` for another format."""
    starts = [
        _part(data, 0, 3) == b"\xff\xd8\xff",
        _part(data, 0, 8) == b"\x89PNG\r\n\x1a\n",
        _part(data, 0, 4) == b"GIF8",
        (_part(data, 0, 4) == b"RIFF") & _holds(_part(data, 0, 12), b"WEBP"),
        _part(data, 0, 2) == b"BM",
        tf.constant(True),
    ]
    return tf.cast(tf.argmax(tf.cast(tf.stack(starts), tf.int32)), tf.int32)


def read_header(data: tf.Tensor, kind: tf.Tensor) -> Header:
    """Reads the header of a picture, string [], whose format is known.

    Raises:
        tf.errors.InvalidArgumentError: if the header is damaged.
    """
    branches = [functools.partial(read, data) for read in READERS]
    return tf.switch_case(kind, [*branches, lambda: _header(problem=UNKNOWN)])


@aside
def _read_jpeg(data: tf.Tensor) -> Header:
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(data, output_type=tf.int64))
    exif = tf.cond(_holds(data, b"Exif\0\0"), lambda: _jpeg_exif(data), lambda: tf.constant(b""))
    zeros = _part(data, _length(data) - 2, 2) == b"\0\0"
    cut_off = tf.cond(zeros, lambda: ~_holds(tf.strings.split(data, b"\xff\xda")[-1], b"\xff\xd9"), lambda: tf.constant(False))
    return _header(tf.where(cut_off, DAMAGED, 0), height, width, data, exif)


@aside
def _jpeg_exif(data: tf.Tensor) -> tf.Tensor:
    """The content of the first EXIF segment in front of the pixels."""

    def step(position, begin, size):
        head = _octets(data, position, 10)
        marker = head[1]
        is_marker = (head[0] == 0xFF) & (marker != 0xFF)
        has_length = (marker != 0x01) & ((marker < 0xD0) | (marker > 0xD9))
        length = tf.where(is_marker, 2 + tf.where(has_length, head[2] * 256 + head[3], 0), 1)  # no marker: a filler octet
        is_exif = is_marker & (marker == 0xE1) & tf.reduce_all(head[4:] == tf.constant([*b"Exif\0\0"], tf.int64))
        begin, size = (tf.where(is_exif, *pair) for pair in ((position + 10, begin), (length - 10, size)))
        pixels = is_marker & ((marker == 0xDA) | (marker == 0xD9))
        return tf.where(is_exif | pixels, _length(data), position + length), begin, size

    begin, size = _walk(step, 2, _length(data) - 10, 0, 0)
    return _part(data, begin, size)


@aside
def _read_png(data: tf.Tensor) -> Header:
    head = _octets(data, 8, 18)
    is_header = tf.reduce_all(head[4:8] == tf.constant([*b"IHDR"], tf.int64))
    width, height = _big(head[8:12]), _big(head[12:16])
    chunks = tf.cond(
        _holds(data, b"eXIf") | _holds(data, b"tRNS"), lambda: _png_chunks(data), lambda: (tf.constant(b""), tf.constant(False))
    )
    exif, has_colour = chunks
    has_alpha = has_colour | (head[17] == 4) | (head[17] == 6)
    return _header(tf.where(is_header, 0, DAMAGED), height, width, data, exif, tf.where(has_alpha, 4, 3))


@aside
def _png_chunks(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The content of the chunk eXIf, and whether there is a chunk tRNS."""

    def step(position, begin, size, has_colour):
        name, length = _part(data, position + 4, 4), _big(_octets(data, position, 4))
        begin, size = (tf.where(name == b"eXIf", *pair) for pair in ((position + 8, begin), (length, size)))
        return position + 12 + length, begin, size, tf.where(name == b"tRNS", tf.constant(1, tf.int64), has_colour)

    begin, size, has_colour = _walk(step, 8, _length(data) - 12, 0, 0, 0)
    return _part(data, begin, size), has_colour > 0


@aside
def _read_gif(data: tf.Tensor) -> Header:
    screen = _octets(data, 6, 7)
    width, height = _little(screen[:2]), _little(screen[2:4])
    first = 13 + _table_size(screen[4])

    def extension(position, clear, image):
        """Goes over an extension or one of its sub-blocks; a graphic control names the colour that is transparent."""
        head = _octets(data, position, 8)
        is_control = (head[0] == 0x21) & (head[1] == 0xF9) & (head[2] == 4)
        clear = tf.where(is_control, tf.where(head[3] % 2 == 1, head[6], -1), clear)
        is_image = head[0] == 0x2C
        after = tf.cond(head[0] == 0x21, lambda: _after_blocks(data, position + 2), lambda: _length(data))
        return tf.where(is_image, _length(data), after), clear, tf.where(is_image, position, image)

    clear, image = _walk(extension, first, _length(data) - 10, -1, 0)
    descriptor = _octets(data, image, 10)
    places = tf.reshape(descriptor[1:9], [4, 2])
    is_whole = tf.reduce_all(_little(tf.transpose(places)) == tf.stack([0, 0, width, height]))
    table = image + 10 + _table_size(descriptor[9])
    end = _after_blocks(data, table + 1)  # the table is followed by an octet with the bits of the smallest code
    parts = [
        _part(data, 0, 13),
        _whiten(_part(data, 13, first - 13), clear),
        _part(data, image, 10),
        _whiten(_part(data, image + 10, table - image - 10), clear),
        _part(data, table, end - table),
        b";",
    ]
    problem = tf.where(image == 0, DAMAGED, tf.where(is_whole, 0, UNSUPPORTED))
    return _header(problem, height, width, tf.strings.join(parts))


def _table_size(flags: tf.Tensor) -> tf.Tensor:
    """Octets of a GIF's colour table."""
    return tf.where(flags >= 0x80, 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8), 0)


def _after_blocks(data: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """The position behind a GIF's sub-blocks. Each begins with its length, and one of length 0 ends them."""

    def step(position, end):
        size = _octets(data, position, 1)[0]
        return tf.where(size == 0, _length(data), position + 1 + size), position + 1

    return _walk(step, position, _length(data) - 1, _length(data))[0]


def _whiten(table: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """A GIF's colour table with white in the place of the colour at `index`; -1 changes nothing."""
    begin, end = 3 * index, 3 * index + 3

    def whitened() -> tf.Tensor:
        tail = _part(table, end, _length(table) - end)
        return tf.strings.join([_part(table, 0, begin), b"\xff\xff\xff", tail])

    return tf.cond((index >= 0) & (end <= _length(table)), whitened, lambda: table)


@aside
def _read_webp(data: tf.Tensor) -> Header:
    end = tf.minimum(_length(data), 8 + _little(_octets(data, 4, 4)))
    is_extended = _part(data, 12, 4) == b"VP8X"
    flags = tf.cond(is_extended, lambda: _octets(data, 20, 10), lambda: tf.zeros([10], tf.int64))
    canvas = 1 + tf.stack([_little(flags[7:10]), _little(flags[4:7])])
    outer = _riff_chunks(data, tf.constant(12, tf.int64), end)
    frame, frame_size = tf.unstack(outer[3])
    has_frames = (flags[0] & 2 > 0) & (frame > 0)
    inner = tf.cond(has_frames, lambda: _riff_chunks(data, frame + 16, frame + frame_size), lambda: outer)
    (lossy, lossy_size), (lossless, lossless_size), (alpha, alpha_size), *_ = map(tf.unstack, tf.unstack(inner))
    exif, exif_size = tf.unstack(outer[4])

    def of_lossy():
        head = _octets(data, lossy + 6, 4)
        return tf.stack([_little(head[2:]), _little(head[:2])]) % 2**14, tf.constant(False)

    def of_lossless():
        bits = _little(_octets(data, lossless + 1, 4))
        return 1 + tf.stack([bits // 2**14 % 2**14, bits % 2**14]), bits // 2**28 % 2 > 0

    size, has_alpha = tf.cond(lossless > 0, of_lossless, of_lossy)
    is_mixed = (lossless == 0) & (alpha > 0) & (flags[0] & 0x10 > 0)
    extended = [b"VP8X\x0a\0\0\0\x10\0\0\0", *(_little_octets(side - 1, 3) for side in tf.unstack(size[::-1]))]
    parts = [tf.cond(is_mixed, lambda: tf.strings.join([*extended, _chunk(data, alpha, alpha_size)]), lambda: tf.constant(b""))]
    parts.append(tf.cond(lossless > 0, lambda: _chunk(data, lossless, lossless_size), lambda: _chunk(data, lossy, lossy_size)))
    body = tf.strings.join([b"WEBP", *parts])
    still = tf.strings.join([b"RIFF", _little_octets(_length(body), 4), body])
    is_whole = tf.reduce_all(size == canvas) | ~is_extended
    problem = tf.where(is_whole, 0, tf.where(has_frames, UNSUPPORTED, DAMAGED))
    problem = tf.where((lossy > 0) | (lossless > 0), problem, DAMAGED)
    has_exif = (flags[0] & 8 > 0) & (exif > 0)
    block = tf.cond(has_exif, lambda: _part(data, exif, exif_size), lambda: tf.constant(b""))
    return _header(problem, size[0], size[1], still, block, tf.where(is_mixed | has_alpha, 4, 3))


def _riff_chunks(data: tf.Tensor, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """int64 [5, 2]: position and size of the content of a WebP's first complete chunk of each name; 0 where there is none."""
    names = tf.constant([b"VP8 ", b"VP8L", b"ALPH", b"ANMF", b"EXIF"])

    def step(position, chunks):
        size = _little(_octets(data, position + 4, 4))
        is_match = (names == _part(data, position, 4)) & (chunks[:, 0] == 0) & (position + 8 + size <= end)
        chunks = tf.where(is_match[:, tf.newaxis], tf.stack([position + 8, size]), chunks)
        return position + 8 + size + size % 2, chunks

    return _walk(step, begin, end - 8, tf.zeros([5, 2], tf.int64))[0]


def _chunk(data: tf.Tensor, begin: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """A chunk of a WebP with its name, size and padding, by the position and size of its content."""
    return _part(data, begin - 8, 8 + size + size % 2)


@aside
def _read_bmp(data: tf.Tensor) -> Header:
    head = _octets(data, 14, 20)  # TensorFlow's decoder reads only the sides and the bits of it
    width, height = _little(head[4:8]), _little(head[8:12])
    height = tf.where(height >= 2**31, 2**32 - height, height)  # negative: rows from top to bottom
    bits = _little(head[14:16])
    is_plain = (_little(head[:4]) >= 40) & (_little(head[16:20]) == 0) & ((bits == 24) | (bits == 32))
    return _header(tf.where(is_plain, 0, UNSUPPORTED), height, width, data, channels=tf.where(bits == 32, 4, 3))


READERS = (_read_jpeg, _read_png, _read_gif, _read_webp, _read_bmp)
"""The function that reads the header of each format, in the order of `kind_of`."""


def _header(problem=0, height=0, width=0, still=b"", exif=b"", channels=3) -> Header:
    size = tf.stack([tf.cast(height, tf.int64), tf.cast(width, tf.int64)])
    numbers = tf.cast(problem, tf.int32), size
    return Header(*numbers, tf.convert_to_tensor(exif), tf.convert_to_tensor(still), tf.cast(channels, tf.int32))


def _walk(step: Callable, begin, end, *state) -> list[tf.Tensor]:
    """The state after going from block to block, up to `end` inclusive: `step(position, *state)` gives the next of both."""
    begin, *state = (tf.convert_to_tensor(value, tf.int64) for value in (begin, *state))
    loop = [tf.constant(0, tf.int64), begin, *state]
    _, _, *state = tf.while_loop(
        lambda count, position, *_: (position <= end) & (count < _MAX_STEPS),
        lambda count, *values: (count + 1, *step(*values)),
        loop,
        parallel_iterations=1,
    )
    return state


def _holds(data: tf.Tensor, part: bytes) -> tf.Tensor:
    return tf.size(tf.strings.split(data, part, maxsplit=1)) > 1


def _length(data: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(data), tf.int64)


def _part(data: tf.Tensor, begin, size) -> tf.Tensor:
    """`size` octets from `begin` on, fewer if the data end earlier; an error if they end before `begin`."""
    return tf.strings.substr(data, tf.convert_to_tensor(begin, tf.int64), tf.convert_to_tensor(size, tf.int64))


def _octets(data: tf.Tensor, position, count: int) -> tf.Tensor:
    """`count` octets from `position` on, as int64 [count]; an error if the data end earlier."""
    part = tf.io.decode_raw(_part(data, position, count), tf.uint8)
    return tf.cast(tf.ensure_shape(part, [count]), tf.int64)


def _little(octets: tf.Tensor) -> tf.Tensor:
    """The number that octets spell, the least significant first: int64 [n, …] -> […]."""
    return sum(octets[index] * 256**index for index in range(octets.shape[0]))


def _big(octets: tf.Tensor) -> tf.Tensor:
    return _little(octets[::-1])


def _little_octets(number: tf.Tensor, count: int) -> tf.Tensor:
    """The octets of a number as a string []."""
    octets = [number // 256**index % 256 for index in range(count)]
    return tf.strings.reduce_join(tf.gather(tf.constant(_OCTETS), tf.stack(octets)))
