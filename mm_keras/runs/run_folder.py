"""What a run folder contains.

runs/<name>/
    config.gin  operative_config.gin     as given; as used
    run.json                             dataset, versions, what was trained on what
    features.json  vocabulary_<n>.*      what the model takes in and gives out
    text_model_<n>/                      copies of SavedModels that embed texts
    training.json                        all that a resumed training must share with this one
    metrics.jsonl                        one line an epoch
    checksums.sha256                     of all of these files; `mm-keras verify` reads it, and so does whoever reads a file
    checkpoints/best.keras
    checkpoints/step-<step>.safetensors  until the training is finished: the state that it is resumed from
    thresholds.json                      of a multi-label run with a validation split: a probability for each label
    class_encoder/                       of a run with a class-embedding head: the classes' texts, and their encoder
    classifier.json                      of a run of `MultimodalClassifier`: its columns and classes
    late_fusion.json                     of a fused run: which runs it was made of, by which method, on which split
    tensorboard/
    report/                              evaluation.*; report.html with report.json, tables/, figures/; MODEL_CARD.md
    export/<version>/                    SavedModels
    baselines/<modality>/                run folders of models that see one modality, by its `safe_name`
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging

from mm_keras.features import FEATURES_FILE, FeatureSpec, safe_name
from tfrecords_tools.dataset import checksums
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.dataset.info import DATASET_FILE

if TYPE_CHECKING:
    import keras

RUN_FILE = "run.json"
VERIFY_COMMAND = "mm-keras verify"
FORMAT_VERSION = 2  # of run.json and what it says of the other files

OWN_FILES = (
    "config.gin",
    "operative_config.gin",
    RUN_FILE,
    "training.json",
    FEATURES_FILE,
    "vocabulary_*",
    "text_model_*",
    "metrics.jsonl",
    "checkpoints",
    "thresholds.json",
    "class_encoder",
    "late_fusion.json",
    "classifier.json",
    "tensorboard",
    "report",
    "export",
    "baselines",
    checksums.CHECKSUMS_FILE,
)


class RunFolderError(ValueError):
    """A run folder that this version cannot read; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class SavedConfig:
    """The texts of a config that are kept with its run.

    Attributes:
        given: the config as it was given, with overrides as comments.
        operative: all values that were used, as gin.
    """

    given: str
    operative: str


class RunFolder:
    """The paths in a run folder, and the content of its run.json.

    Args:
        path: the run folder, which need not exist yet.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.run_file = self.path / RUN_FILE
        self.metrics = self.path / "metrics.jsonl"
        self.setup = self.path / "training.json"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.checkpoints / "best.keras"
        self.thresholds = self.path / "thresholds.json"
        self.class_encoder = self.path / "class_encoder"
        self.late_fusion = self.path / "late_fusion.json"
        self.tensorboard = self.path / "tensorboard"
        self.report = self.path / "report"
        self.card = self.report / "MODEL_CARD.md"
        self.export = self.path / "export"
        self.baselines = self.path / "baselines"

    def baseline(self, modality: str) -> Path:
        """The run folder of the baseline that sees one modality."""
        return self.baselines / safe_name(modality)

    def check_free(self, overwrite: bool) -> None:
        """Raises FileExistsError if the folder already holds a run, unless that may be overwritten."""
        paths = self._taken()
        if paths and not overwrite:
            raise FileExistsError(
                f"{self.path} already holds a run ({paths[0].name}); choose another --workdir, or pass --resume to go on "
                "with it, or --overwrite to delete it"
            )

    def can_resume(self) -> bool:
        """Whether the folder holds a run that can be resumed, or is finished; prints a line if it holds none.

        Raises:
            FileExistsError: if it holds a run that left nothing to resume it by.
        """
        if self.run_file.is_file() and self.setup.is_file():
            return True
        if self.best.is_file():
            raise FileExistsError(
                f"{self.path} holds a run that left no {self.setup.name} to resume it by; choose another --workdir, or pass "
                "--overwrite to delete it"
            )
        logging.info(f"no training was begun in {self.path}: there is nothing to resume, it begins now")
        return False

    def start(self, overwrite: bool) -> None:
        """Makes the folder for a new training. A run in it is deleted if `overwrite` allows it; other files are kept."""
        self.check_free(overwrite)
        for path in self._taken():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.best.parent.mkdir(parents=True)
        checksums.begin(self.path, VERIFY_COMMAND)

    def _taken(self) -> list[Path]:
        return [path for name in OWN_FILES for path in sorted(self.path.glob(name))]

    def save_facts(self, **facts) -> None:
        """Writes run.json."""
        content = {"format_version": FORMAT_VERSION, **facts}
        write_text(self.run_file, json.dumps(content, indent=2) + "\n")

    def save_config(self, config: SavedConfig) -> None:
        """Writes config.gin and operative_config.gin."""
        write_text(self.path / "config.gin", config.given)
        write_text(self.path / "operative_config.gin", config.operative)

    def facts(self) -> dict:
        """What `save_facts` wrote.

        Raises:
            FileNotFoundError: if nothing was trained here.
            DamagedFileError: if run.json is not what was written.
            RunFolderError: if the folder was made by another version.
        """
        path = self.run_file
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: {str(self.path)!r} is no run folder, or nothing was trained in it")
        facts = checksums.read_json(path)
        version = facts.pop("format_version", None) if isinstance(facts, dict) else None
        if version != FORMAT_VERSION:
            raise RunFolderError(
                f"{path} has format_version {version!r}; this version reads {FORMAT_VERSION}. Train the run again, or use the "
                "version of mm_keras that made it"
            )
        return facts

    def dataset(self, given: str | Path | Dataset | None) -> Dataset:
        """The dataset to measure on: the given one, or the one that the run was trained on.

        Raises:
            FileNotFoundError: if none is given, and that of the run is no longer there.
        """
        if given:
            return Dataset.open(given)
        folder = self.facts()["dataset"]
        if not (Path(folder) / DATASET_FILE).is_file():
            raise FileNotFoundError(f"{folder}, on which {self.path} was trained, is not there; name a dataset with --dataset")
        return Dataset.open(folder)

    def load_model(self) -> tuple[keras.Model, FeatureSpec]:
        """Loads the trained model and what it takes in.

        Raises:
            FileNotFoundError: if nothing was trained here.
            DamagedFileError: if a file is not what was written.
        """
        from mm_keras.runs.load_model import load_model  # it imports TensorFlow, which `mm-keras verify` does without

        features = FeatureSpec.load(self.path)
        if not self.best.is_file():
            raise FileNotFoundError(f"{self.best} does not exist: the training in {str(self.path)!r} did not get that far")
        checksums.check(self.best, *sorted(self.path.glob("text_model_*")))
        return load_model(self.best), features

    def check(self) -> None:
        """Raises DamagedFileError if a file of the run is not what was written; checkpoints to resume from are not checked."""
        if (self.path / checksums.CHECKSUMS_FILE).is_file():
            names = checksums.load(self.path).names_of("")
            checksums.check(*(self.path / name for name in names if not name.startswith(f"{self.checkpoints.name}/step-")))
