"""`mm-keras`, also `python run.py`: train, evaluate, predict, export, add classes, fuse, sweep. Flags precede TensorFlow."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mm_keras.distribution.local_workers import run_local_workers
from mm_keras.distribution.workers import check_strategy

MODES = ("train_and_evaluate", "train", "evaluate", "predict", "export", "add_classes", "late_fusion", "experiments")

_TRAINING = ("train_and_evaluate", "train")
_FLAGS_OF_SOME_MODES = {
    **dict.fromkeys(("strategy", "local_workers", "dry_run", "resume"), _TRAINING),
    "overwrite": (*_TRAINING, "late_fusion"),
    **dict.fromkeys(("dataset", "split"), ("evaluate", "export", "late_fusion")),
    **dict.fromkeys(("image", "text", "examples"), ("predict",)),
    **dict.fromkeys(("classes", "output"), ("add_classes",)),
    **dict.fromkeys(("runs", "method"), ("late_fusion",)),
    **dict.fromkeys(("sweep", "workers"), ("experiments",)),
}

_DESCRIPTION = "Train, evaluate and ship classifiers of images that come with text."
_EPILOG = """examples:
  mm-keras --config=quickstart.gin                        train, evaluate and export on drawn sample data
  mm-keras --config=quickstart.gin --dry_run              build data and model, print shapes and sizes, stop
  mm-keras --config=quickstart.gin --gin_bindings='train.epochs=3' --gin_bindings='train.batch_size=32'
  mm-keras --config=quickstart.gin --resume               go on with a training that was cut off
  mm-keras --config=quickstart.gin --local_workers=2      train in two processes that act as two machines
  mm-keras --mode=evaluate --workdir=runs/quickstart      a trained run needs nothing but its folder
  mm-keras --mode=predict --workdir=runs/quickstart --image=photo.jpg --text='title=Solid oak, new'
  mm-keras --mode=predict --workdir=runs/quickstart --examples=new.jsonl
  mm-keras --mode=export --workdir=runs/quickstart        writes runs/quickstart/export/<next version>
  mm-keras --mode=add_classes --workdir=runs/classes --classes=new.jsonl --output=runs/more_classes
  mm-keras --mode=late_fusion --workdir=runs/fused --runs=runs/image,runs/text --method=weights
  mm-keras --mode=experiments --sweep=sweep.toml          all settings of a sweep file with several seeds: table, box plots
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one mode.

    Returns:
        the exit status: 0 fine; 2 the call, the config or the data is wrong; 75 the process was asked to end (SIGTERM), or
        one of several workers is gone, and the same command with --resume goes on.
    """
    parser = _make_parser()
    options = parser.parse_args(arguments)
    if options.mode in _TRAINING and not options.config:
        parser.error(f"--mode={options.mode} needs a config, for example --config=quickstart.gin")
    if options.mode == "experiments" and (not options.sweep or options.config or options.gin_bindings):
        parser.error("--mode=experiments needs --sweep=FILE; its config and bindings stand in that file")
    if not options.config and not options.workdir and not options.sweep:
        parser.error("name a run folder (--workdir), a config (--config), or both")
    if options.mode == "add_classes" and not (options.classes and options.output):
        parser.error("--mode=add_classes needs --classes=FILE and --output=FOLDER")
    if options.mode == "late_fusion" and not (options.runs and options.workdir):
        parser.error("--mode=late_fusion needs --runs=FOLDER,FOLDER,… and --workdir=FOLDER, the run folder to make")
    for flag, modes in _FLAGS_OF_SOME_MODES.items():
        if getattr(options, flag) and options.mode not in modes:
            parser.error(f"--{flag} goes with --mode={' or '.join(modes)}, not with --mode={options.mode}")
    if options.resume and (options.overwrite or options.dry_run):
        parser.error(f"--resume goes on with a run; --{'overwrite' if options.overwrite else 'dry_run'} does not")
    try:
        check_strategy(options.strategy or "auto")
    except ValueError as error:
        parser.error(str(error))
    if options.local_workers is not None and not os.environ.get("TF_CONFIG"):  # that the workers have from here
        if options.local_workers < 2 or options.strategy not in (None, "auto", "multi_worker"):
            parser.error("--local_workers is 2 or more, and goes with --strategy=multi_worker alone")
        given = sys.argv[1:] if arguments is None else arguments
        return run_local_workers([sys.executable, "-m", "mm_keras.cli.main", *given], options.local_workers)
    with _quiet_start_up():
        import tensorflow  # noqa: F401
    from mm_keras.distribution.multi_worker import tell_of_lost_workers
    from mm_keras.distribution.preemption import EXIT_CODE, Preempted, raise_on_sigterm

    try:
        with raise_on_sigterm(), tell_of_lost_workers():
            _run(options)
    except Preempted as stop:
        print(f"{parser.prog}: {_first_cause(stop)}", file=sys.stderr)
        return EXIT_CODE
    except (ValueError, OSError, ImportError, RuntimeError, ArithmeticError) as error:
        if options.traceback:
            raise
        print(f"{parser.prog}: {_first_cause(error)}", file=sys.stderr)
        return 2
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mm-keras", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="FILE", help="gin config; a bare name is also looked up in configs/")
    parser.add_argument("--mode", choices=MODES, default="train_and_evaluate", help="default: train_and_evaluate")
    parser.add_argument("--workdir", metavar="FOLDER", help="the run folder (default: runs/<name of the config or sweep>)")
    parser.add_argument("--gin_bindings", action="append", default=[], metavar="LINE", help="overrides the config; repeatable")
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
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    data = parser.add_argument_group("evaluate, export and late_fusion")
    data.add_argument("--dataset", metavar="FOLDER", help="dataset folder (default: the one the run was trained on)")
    data.add_argument("--split", help="its split (default: test; late_fusion fits on val)")
    predict = parser.add_argument_group("predict")
    predict.add_argument("--image", metavar="FILE", help="the picture: JPEG, PNG, GIF or BMP")
    predict.add_argument("--text", action="append", default=[], metavar="FIELD=TEXT", help="a text field; repeatable")
    predict.add_argument("--examples", metavar="FILE", help='.jsonl, an object a line: {"image": path, "title": text, …}')
    add = parser.add_argument_group("add_classes", "to a run with a class-embedding head")
    add.add_argument("--classes", metavar="FILE", help="texts of the new classes: JSON Lines of label and text, or a CSV")
    add.add_argument("--output", metavar="FOLDER", help="the run folder to make; --workdir stays as it is")
    fuse = parser.add_argument_group("late_fusion", "makes the run --workdir of trained runs, whose answers it brings together")
    fuse.add_argument("--runs", metavar="FOLDER,…", help="run folders of one dataset; what they share they see in the same way")
    fuse.add_argument(
        "--method",
        help="weights (default): the weighted sum of probabilities; weights_per_label: with weights of its own for each label; "
        "vote: the majority; stacking: a logistic layer over the answers",
    )
    sweep = parser.add_argument_group("experiments", "each training in a process; started again, it goes on where it stopped")
    sweep.add_argument("--sweep", metavar="FILE", help="TOML: config, repeats, bindings, and [sweep] or [search]")
    sweep.add_argument("--workers", type=int, metavar="N", help="trainings at a time (default: 1)")
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.mode == "experiments":
        from mm_keras.sweep.run_sweep import experiments

        workdir = options.workdir or Path("runs") / Path(options.sweep).stem
        experiments(options.sweep, workdir, 1 if options.workers is None else options.workers)
        return
    from mm_keras.config import ConfigError, find_config, load_config, operative_config

    config = find_config(options.config) if options.config else None
    bindings = [*options.gin_bindings]
    if options.strategy:
        bindings.append(f"train.strategy = {options.strategy!r}")
    bindings += [f"train.{flag} = True" for flag in ("overwrite", "dry_run") if getattr(options, flag)]
    if options.dry_run:
        bindings += ["train_and_evaluate.evaluate = None", "train_and_evaluate.export = None"]
        bindings += ["train_and_evaluate.baselines = ()"]
    if not config and options.gin_bindings:
        raise ConfigError("--gin_bindings override a config; name it with --config")
    functions = load_config(config, bindings)
    workdir = Path(options.workdir) if options.workdir else Path("runs") / config.stem
    given = {name: value for name, value in (("dataset", options.dataset), ("split", options.split)) if value}
    if options.mode == "predict":
        from mm_keras.runs.predict import predict

        predict(workdir, _example(options), options.examples)
    elif options.mode == "add_classes":
        from mm_keras.runs.add_classes import add_classes

        add_classes(workdir, options.classes, options.output)
    elif options.mode == "late_fusion":
        from mm_keras.runs.late_fusion.fuse import late_fusion

        given |= {"method": options.method} if options.method else {}
        late_fusion(workdir, options.runs.split(","), overwrite=options.overwrite, **given)
    elif options.mode in ("evaluate", "export"):
        functions[options.mode](workdir, **given)
    else:
        overrides = "".join(f"\n# --gin_bindings: {line}" for line in bindings)
        given_config = config.read_text("utf-8") + overrides + "\n"

        from mm_keras.distribution.multi_worker import this_worker
        from mm_keras.runs.run_folder import RunFolder, SavedConfig

        resumed = {"resume": True} if options.resume else {}
        functions[options.mode](workdir=workdir, config=SavedConfig(given_config, operative_config()), **resumed)
        if not options.dry_run and this_worker().is_chief:
            RunFolder(workdir).save_config(SavedConfig(given_config, operative_config()))  # now with all that was used


def _example(options: argparse.Namespace) -> dict[str, str]:
    example = {"image": options.image} if options.image else {}
    for text in options.text:
        field, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--text takes FIELD=TEXT, for example --text='title=Blue mug'. Received: {text!r}")
        example[field] = value
    return example


@contextlib.contextmanager
def _quiet_start_up() -> Iterator[None]:
    """Holds back what TensorFlow's C++ prints while it is imported; shows it if the import fails.

    TF_CPP_MIN_LOG_LEVEL does not reach these lines; who sets it to 0 sees them.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _first_cause(error: BaseException) -> str:
    """The message without what gin appends to it."""
    return str(error).split("\n  In call to configurable")[0]


if __name__ == "__main__":
    sys.exit(main())
