"""`mm-keras train`: an experiment from a config to an exported model."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from mm_keras.cli.shared_options import add_bindings
from mm_keras.cli.start_up import import_tensorflow
from mm_keras.cli.train_table import add_table_arguments, given_table_options, make_table_config, name_of_data
from mm_keras.distribution.local_workers import run_local_workers
from mm_keras.distribution.workers import check_strategy

SUMMARY = "train a model on your table, or as a config says, evaluate it and export it"
DESCRIPTION = """Train a model on a table of your own, or as a gin config says; then baselines that see one input each if
the config lists any; evaluate all of them in one table, and export the model. Everything goes into one
run folder, which the other commands work on; it also holds the config that a table amounts to."""
EXAMPLES = """  mm-keras train --table=products.csv --image=photo --text=title,description --label=category
  mm-keras train --table=products.csv --text=title --label=category --preset=scratch     without pretrained weights
  mm-keras train quickstart.gin                       on drawn sample data, into runs/quickstart
  mm-keras train quickstart.gin --dry_run             build data and model, print shapes and sizes, and stop
  mm-keras train quickstart.gin --set='train.epochs=3' --set='train.batch_size=32'
  mm-keras train quickstart.gin --resume              go on with a training that was cut off
  mm-keras train quickstart.gin --local_workers=2     train in two processes that act as two machines
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a gin config; a bare name is also looked up among those of mm-keras"
    )
    parser.add_argument("--config", dest="config_option", metavar="CONFIG", help="the same, as an option")
    parser.add_argument("--workdir", metavar="FOLDER", help="the run folder (default: runs/<name of the config or the table>)")
    add_bindings(parser)
    parser.add_argument(
        "--strategy",
        metavar="NAME",
        help="distribution: auto (default), none, mirrored, multi_worker (needs TF_CONFIG), tpu, tpu:<name>",
    )
    parser.add_argument(
        "--local_workers", type=int, metavar="N", help="run N worker processes on this machine, to try multi_worker"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete a run that is already in the run folder")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in the run folder; begin one if there is none"
    )
    parser.add_argument("--dry_run", action="store_true", help="build data and model, print shapes and sizes, and stop")
    parser.add_argument("--train_only", action="store_true", help="stop after training: no baselines, evaluation or export")
    add_table_arguments(parser)


def run(options: argparse.Namespace) -> int:
    config = options.config or options.config_option
    flags = given_table_options(options)
    if config and flags:
        raise ValueError(f"train takes a config or a table, and {flags[0]} is of a table. Received: the config {config!r}, too")
    if flags and not (options.table or options.dataset):
        raise ValueError(f"{flags[0]} says how a table is read: name it with --table=FILE")
    if not (config or flags) or (options.config and options.config_option):
        raise ValueError(
            "train takes one config, for example `mm-keras train quickstart.gin`, or a table: `mm-keras train "
            "--table=products.csv --image=photo --text=title --label=category`"
        )
    if options.resume and (options.overwrite or options.dry_run):
        raise ValueError(f"--resume goes on with a run; --{'overwrite' if options.overwrite else 'dry_run'} does not")
    check_strategy(options.strategy or "auto")
    if options.local_workers is not None and not os.environ.get("TF_CONFIG"):  # the workers find it set
        if options.local_workers < 2 or options.strategy not in (None, "auto", "multi_worker"):
            raise ValueError("--local_workers is 2 or more, and goes with --strategy=multi_worker alone")
        return run_local_workers([sys.executable, "-m", "mm_keras.cli.main", *options.arguments], options.local_workers)
    import_tensorflow()
    from mm_keras.config.load import find_config
    from mm_keras.distribution.multi_worker import tell_of_lost_workers

    with tell_of_lost_workers():
        if config:
            _train(find_config(config), options)
            return 0
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name_of_data(options)}.gin"
            path.write_text(make_table_config(options), "utf-8")
            _train(path, options)
    return 0


def _train(path: Path, options: argparse.Namespace) -> None:
    """Loads the config and calls its root function."""
    from mm_keras.config.load import load_config
    from mm_keras.runs.run_folder import SavedConfig

    strategy = [f"train.strategy = {options.strategy!r}"] if options.strategy else []
    config = load_config(path, [*options.gin_bindings, *strategy])
    for check in config.early_checks:  # before hours of packing
        check()
    workdir = Path(options.workdir) if options.workdir else Path("runs") / path.stem
    flags = {name: True for name in ("resume", "overwrite", "dry_run") if getattr(options, name)}
    function = config.functions["train" if options.train_only else "train_and_evaluate"]
    function(workdir=workdir, config=SavedConfig(config.given, config.operative), **flags)
