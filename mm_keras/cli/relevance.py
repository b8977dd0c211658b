"""`mm-keras relevance`: which captions say something of their class, as a filter and as weights of training."""

from __future__ import annotations

import argparse

from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "find captions that do not belong to their class, and weigh the others"
DESCRIPTION = """Captions that were found with a picture often say nothing of its class. `pairs` makes the texts on which a
model learns to tell classes by text; `score` asks it how probable each caption's own class is, drops
those that are improbable and writes a coefficient for each of the others, which `tfrecords-tools pack
tfrecords --join` writes into the records as their weight; `corrupt` swaps a known share of a table's
texts, to see how many of them are found. docs/studies/captions_relevance.md shows all of it."""
EXAMPLES = """  mm-keras relevance pairs data/captions --texts=class_texts.jsonl --output=data/pairs
  mm-keras relevance score runs/relevance --dataset=data/captions --output=relevance
  mm-keras relevance corrupt products.csv --column=description --label=category --share=0.2 --output=corrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    pairs = actions.add_parser("pairs", help="write the table that a relevance model is trained on")
    pairs.add_argument("dataset", metavar="DATASET", help="a packed dataset of one label an example")
    pairs.add_argument("--texts", metavar="FILE", required=True, help="class texts: JSON Lines of label and text, or a CSV")
    pairs.add_argument("--number", type=int, default=300_000, help="captions to train on (default: 300,000)")
    pairs.add_argument("--sentences", type=int, default=10, help="the longest of a class that are used (default: 10)")
    pairs.add_argument("--folds", type=int, default=1, help="leave one of so many folds out (default: 1, none)")
    pairs.add_argument("--fold", type=int, default=0, help="the fold that is left out (default: 0)")
    pairs.add_argument("--seed", type=int, default=0, help="of the captions drawn (default: 0)")
    pairs.set_defaults(action=_pairs)
    score = actions.add_parser("score", help="score captions; write coefficients and what is dropped")
    score.add_argument("runs", nargs="+", metavar="RUN", help="the trained run; or one a fold, in the folds' order")
    score.add_argument("--dataset", metavar="DATASET", required=True, help="the packed dataset")
    score.add_argument("--least", type=float, default=0.5, help="drop below this probability of the own class (default: 0.5)")
    score.add_argument("--below_mean", action="store_true", help="do not drop for being below the mean over all classes")
    score.add_argument("--sure", type=float, default=0.9, help="above it a probability counts as 1 (default: 0.9)")
    score.add_argument("--lift", type=float, default=0.1, help="added to the others (default: 0.1)")
    score.add_argument("--curve", default="linear", help="of the coefficients: linear (default), square, root, flat")
    score.add_argument("--truth", metavar="FILE", help="ids of captions known to be wrong, one a line, for the report")
    score.add_argument("--texts", metavar="FILE", help="class texts, for a comparison with plain text similarity")
    score.set_defaults(action=_score)
    for action in (pairs, score):
        action.add_argument("--fields", default="title,description", metavar="FIELD,…", help="what makes a caption, in order")
    corrupt = actions.add_parser("corrupt", help="swap a known share of a table's texts between classes")
    corrupt.add_argument("table", metavar="FILE", help="a CSV with a column id")
    corrupt.add_argument("--column", required=True, help="of the texts")
    corrupt.add_argument("--label", required=True, metavar="COLUMN", help="of the classes")
    corrupt.add_argument("--share", type=float, default=0.2, help="of the texts that are swapped (default: 0.2)")
    corrupt.add_argument("--split", default="", help="swap only where the column split says this")
    corrupt.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    corrupt.set_defaults(action=_corrupt)
    for action in (pairs, score, corrupt):
        action.add_argument("--output", metavar="FOLDER", required=True, help="the folder to write")
        action.add_argument("--traceback", action="store_true", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    import_tensorflow()
    options.action(options)
    return 0


def _pairs(options: argparse.Namespace) -> None:
    from mm_keras.studies.relevance_pairs import write_pairs

    numbers = {name: getattr(options, name) for name in ("number", "sentences", "folds", "fold", "seed")}
    write_pairs(options.dataset, options.texts, options.output, options.fields.split(","), **numbers)


def _score(options: argparse.Namespace) -> None:
    from mm_keras.studies.relevance import Rule, score_captions

    rule = Rule(options.least, not options.below_mean, options.sure, options.lift, options.curve)
    fields = options.fields.split(",")
    score_captions(options.runs, options.dataset, options.output, fields, rule, options.truth, options.texts)


def _corrupt(options: argparse.Namespace) -> None:
    from mm_keras.studies.relevance import corrupt_table

    corrupt_table(options.table, options.output, options.column, options.label, options.share, options.seed, options.split)
