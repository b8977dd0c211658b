"""`mm-keras few-shot`: how well added classes are known from their texts and a few pictures of each."""

from __future__ import annotations

import argparse

from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "measure added classes: by their texts alone, and with a few pictures of each"
DESCRIPTION = """How well does a run know classes that were added to it? `split` draws the classes that are held out of
training; `measure` tells how many of their examples are answered right from the classes' texts alone,
and with a few pictures of each, by three ways on the same pictures: moving the class towards its
pictures, training the head that compares with class embeddings, and a plain linear head."""
EXAMPLES = """  mm-keras few-shot split class_texts.csv --output=held_out
  mm-keras few-shot measure runs/more_classes --dataset=data/all --shots=0,1,5,10
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    split = actions.add_parser("split", help="draw classes to hold out: labels.txt of the others, new_classes.csv of these")
    split.add_argument(
        "texts", metavar="TEXTS", help="class texts: JSON Lines of label and text, or a CSV of label,description"
    )
    split.add_argument("--output", metavar="FOLDER", required=True, help="the folder to write")
    split.add_argument("--fraction", type=float, default=0.25, help="of the classes that are held out (default: 0.25)")
    split.set_defaults(action=_split)
    measure = actions.add_parser("measure", help="measure the added classes of a run")
    measure.add_argument("run_folder", metavar="RUN", help="a run that mm-keras add-classes made")
    measure.add_argument(
        "--dataset", metavar="FOLDER", required=True, help="examples of all its classes, packed with --labels=RUN/labels.txt"
    )
    measure.add_argument("--shots", default="0,1,5,10", metavar="N,…", help="pictures of each new class (default: 0,1,5,10)")
    measure.add_argument("--repeats", type=int, default=5, help="how often shots are drawn (default: 5)")
    measure.add_argument("--split", default="test", help="the split to measure on (default: test)")
    measure.set_defaults(action=_measure)
    for action in (split, measure):
        action.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
        action.add_argument("--traceback", action="store_true", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    import_tensorflow()
    options.action(options)
    return 0


def _split(options: argparse.Namespace) -> None:
    from mm_keras.runs.few_shot import hold_out_classes

    hold_out_classes(options.texts, options.output, options.fraction, options.seed)


def _measure(options: argparse.Namespace) -> None:
    from mm_keras.runs.few_shot import measure_few_shots

    try:
        shots = [int(number) for number in options.shots.split(",")]
    except ValueError:
        raise ValueError(f"--shots takes whole numbers, for example --shots=0,1,5. Received: {options.shots!r}") from None
    measure_few_shots(options.run_folder, options.dataset, shots, options.repeats, split=options.split, seed=options.seed)
