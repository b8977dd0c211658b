"""What the benches share: ways to do the same work take turns, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from tfrecords_tools.progress import progress_bar

CORES = os.cpu_count() or 1


class MissingPeerError(Exception):
    """A peer that is not installed; the message is the command that installs it."""


def in_turns(bench: str, ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Runs every way, then every way again, and so on: A B C A B C.

    Args:
        bench: for the line about a way that cannot run.
        ways: name -> a function that does the work and returns the seconds that count. Where it raises a
            `MissingPeerError`, the way is left out, with a line that says so.
        repeats: how often.

    Returns:
        name -> seconds of the best run.
    """
    best: dict[str, float] = {}
    missing: set[str] = set()
    with progress_bar("measuring", "runs", repeats * len(ways)) as bar:
        for _ in range(repeats):
            for what, run in ways.items():
                if what not in missing:
                    try:
                        best[what] = min(run(), best.get(what, float("inf")))
                    except MissingPeerError as error:
                        missing.add(what)
                        report(bench, what, skipped="not installed", install=str(error))
                bar.update()
    return best


def report(bench: str, what: str, **values) -> None:
    """Prints one JSON line."""
    line = {"bench": bench, "what": what} | values
    print(json.dumps(line | {"cores": CORES, "load": round(os.getloadavg()[0], 2)}), flush=True)


def report_ratios(bench: str, ours: str, rates: dict[str, float], others: Sequence[str]) -> None:
    """Prints how often the rate of each of `others` that was measured goes into ours."""
    report(bench, ours, ratio_to={other: round(rates[ours] / rates[other], 2) for other in others if other in rates})


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def best_times(run: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Seconds, and seconds of CPU time of all threads, of the best of several rounds, after one that does not count."""
    run()
    seconds, cpu_seconds = [], []
    for _ in range(rounds):
        before = time.process_time()
        seconds.append(timed(run))
        cpu_seconds.append(time.process_time() - before)
    return min(seconds), min(cpu_seconds)


def run_elsewhere(python: str, script: str, arguments: dict, packages: Sequence[str], install: str) -> dict:
    """Runs a script of this folder with another Python, which has the peer; returns the JSON object that it prints last.

    Raises:
        MissingPeerError: if that Python cannot find one of `packages`.
    """
    find = f"import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, {list(packages)!r})))"
    if subprocess.run([python, "-c", find], check=False, capture_output=True).returncode:
        raise MissingPeerError(install)
    command = [python, str(Path(__file__).with_name(script)), json.dumps(arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script} failed under {python}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def find_photos(folder: Path | None, scratch: Path, num: int) -> list[Path]:
    """`num` JPEGs: those of `folder`, again and again, or pictures of 500x375 that are drawn into `scratch`."""
    found = sorted(folder.glob("*.[jJ][pP]*[gG]")) if folder else _draw(scratch / "drawn")
    if not found:
        sys.exit(f"{folder} holds no *.jpg, *.jpeg or *.JPEG")
    return [found[index % len(found)] for index in range(num)]


def _draw(folder: Path) -> list[Path]:
    """Pictures with edges, gradients and texture."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(100):
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        pixels += rng.integers(-15, 16, pixels.shape, np.int16)
        for _ in range(20):
            corners = rng.integers(0, 375, (4, 2)).astype(np.int32)
            cv2.fillPoly(pixels, [corners], rng.integers(0, 255, 3).tolist())
        cv2.imwrite(str(folder / f"{index:03d}.jpg"), pixels.clip(0, 255).astype(np.uint8))
    return sorted(folder.iterdir())
