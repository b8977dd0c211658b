"""How fast photos are packed, beside what one would use instead, in the same run. One JSON line per measurement.

    python bench/pack.py [FOLDER OF JPEGS] [--img2dataset_python=OTHER_VENV/bin/python]

Every way writes TFRecords of the same photos, at short side 256 and JPEG quality 90, with a title and a label:

- `tfrecords_tools.packing.pack` with one worker and with one a core, start of the workers and checksums included;
- a loop in one process that resizes with Pillow (bilinear, which antialiases);
- TFDS: a GeneratorBasedBuilder, which also is one process, that resizes with Pillow, and one that does with OpenCV
  (area averaging);
- img2dataset on `file://` addresses with one process a core, area averaging, no EXIF, no hashes. What counts is the time
  that its processes spend on their shards, as it notes down itself: its start (they import TensorFlow, for seconds) is not
  in it. So it stands beside our rate beyond our own start: what more photos take than the fewest that start workers.

The ways take turns; the best run counts. `ssim` is the likeness of the stored pictures to Lanczos' (mean over up to 200
photos that were shrunk), MB are those of the input. Targets on 2 cores: 2.5 times the Pillow loop, 2.3 times TFDS, 1.5
times img2dataset, at an `ssim` that is not worse.

Without a folder it packs pictures that it draws. A peer that is not installed is left out, with a line that says how to
install it.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from pathlib import Path

from measure import CORES, find_photos, in_turns, report, report_ratios, timed
from pack_peers import PEERS, QUALITY, SHORT_SIDE, Photo, mean_ssim, stored_in_records

from tfrecords_tools.packing.images import ImageOptions
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources.example import Source, SourceExample

_FEW, _START = 256, "the fewest photos that start workers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="JPEGs to pack (default: drawn ones)")
    parser.add_argument("--num", type=int, default=4000, help="how many, repeating those there are (default: 4000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way (default: 3)")
    parser.add_argument("--peers", default=",".join(PEERS), help="which peers, separated by commas (default: %(default)s)")
    parser.add_argument("--img2dataset_python", default=sys.executable, help="a Python that has img2dataset (default: this)")
    options = parser.parse_args()
    peers = list(filter(None, options.peers.split(",")))
    if unknown := set(peers) - set(PEERS):
        parser.error(f"--peers: unknown {sorted(unknown)}; there are {list(PEERS)}")

    with tempfile.TemporaryDirectory() as scratch:
        paths = find_photos(options.folder, Path(scratch), options.num)
        photos = [Photo(str(i), path, f"photo {path.stem}", f"class {i % 10}") for i, path in enumerate(paths)]
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
        outputs = {}  # way -> the folder of its last run

        def run(what: str, work) -> float:
            outputs[what] = Path(tempfile.mkdtemp(dir=scratch))
            return work(photos, outputs[what])

        ours = [f"tfrecords_tools.packing.pack, workers={workers}" for workers in sorted({1, CORES})]
        works = {what: functools.partial(_pack, workers=workers) for what, workers in zip(ours, (1, CORES), strict=False)}
        reading = dict.fromkeys(ours, stored_in_records)
        for peer in peers:
            what, work, reading[what] = PEERS[peer]
            elsewhere = {"python": options.img2dataset_python} if peer == "img2dataset" else {}
            works[what] = functools.partial(work, **elsewhere)
        ways = {what: functools.partial(run, what, work) for what, work in works.items()}
        if len(photos) > 2 * _FEW:
            ways[_START] = lambda: _pack(photos[:_FEW], Path(tempfile.mkdtemp(dir=scratch)), CORES)
        seconds = in_turns("pack", ways, options.repeats)
        start = seconds.pop(_START, None)
        rates = {what: len(photos) / best for what, best in seconds.items()}
        for what, best in seconds.items():
            ssim = mean_ssim(reading[what](photos, outputs[what]))
            report(
                "pack",
                what,
                images=len(photos),
                images_per_second=round(rates[what], 1),
                mb_per_second=round(megabytes / best, 1),
                ssim=ssim and round(ssim, 4),
            )
        names = {peer: PEERS[peer][0] for peer in peers}
        report_ratios("pack", ours[-1], rates, [names[peer] for peer in peers if peer != "img2dataset" or not start])
        if start and start < seconds[ours[-1]]:
            beyond = f"{ours[-1]}, beyond its start"
            rates[beyond] = (len(photos) - _FEW) / (seconds[ours[-1]] - start)
            report("pack", beyond, images=len(photos) - _FEW, images_per_second=round(rates[beyond], 1))
            report_ratios("pack", beyond, rates, [names[peer] for peer in peers if peer == "img2dataset"])


def _pack(photos: list[Photo], output: Path, workers: int) -> float:
    def examples():
        for photo in photos:
            yield SourceExample(photo.id, f"bench:{photo.id}", photo.path, texts={"title": [photo.title]}, labels=[photo.label])

    source = Source("bench", examples, text_fields={"title": False}, multi_label=False)
    images = ImageOptions(short_side=SHORT_SIDE, quality=QUALITY)
    options = PackOptions(images=images, fractions={"train": 1.0}, workers=workers)
    return timed(lambda: pack(source, output / "packed", options, progress=False))


if __name__ == "__main__":
    main()
