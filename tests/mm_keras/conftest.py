"""What several of these test files need: small datasets, tiny models, runs trained on them, a BERT of two layers."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras.features import FeatureSpec, ImageSpec, TokenizerSpec, TokenText
from mm_keras.runs import export
from mm_keras.runs.fresh_process import FreshProcess
from tests.mm_keras.same_process import SameProcess
from tests.mm_keras.shared_folder import shared_folder
from tests.mm_keras.tiny_bert import write_tiny_bert
from tests.mm_keras.tiny_use import write_tiny_use
from tfrecords_tools.packing.images import ImageOptions
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources import sample
from tfrecords_tools.sources.example import Source, SourceExample

HERE = Path(__file__).parent
REPOSITORY = Path(mm_keras.__file__).parent.parent

two = [tf.config.LogicalDeviceConfiguration()] * 2  # for two replicas; TensorFlow divides the CPU before all else alone
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)

# Warnings of other packages that nothing here can avoid.
UNAVOIDABLE = [
    # Keras turns its variables into NumPy arrays (on every save) in a way that NumPy 2 is leaving behind.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    # keras_hub leaves the closing of a SentencePiece model's file to Python.
    "ignore:Exception ignored in. .*spm:pytest.PytestUnraisableExceptionWarning",
]


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            for line in UNAVOIDABLE:
                item.add_marker(pytest.mark.filterwarnings(line), append=False)


def pytest_runtest_setup(item):
    """Grappler takes longer than small graphs run; whole programs and slow tests have it, and fresh processes for exports."""
    whole = any(item.get_closest_marker(name) for name in ("ci", "slow"))
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not whole})
    export.FreshProcess = FreshProcess if whole else SameProcess


@pytest.fixture(scope="session", autouse=True)
def _no_reports_unasked():
    """Reports are tested by themselves; the other tests evaluate without them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mm_keras.report.report.PARTS_BY_DEFAULT", ())
        yield


@pytest.fixture(scope="session")
def pack_examples():
    """A function: examples -> a dataset folder. Of examples without a split, all go to `train`."""

    def make(folder, examples: list[SourceExample], text_fields=("title",), multi_label=False, labels=None, **options) -> str:
        fields = text_fields if isinstance(text_fields, dict) else dict.fromkeys(text_fields, False)
        source = Source("rows", lambda: iter(examples), fields, multi_label)
        options = {"fractions": {"train": 1.0}, "examples_per_shard": 50, "workers": 1, "max_bad_fraction": 1.0} | options
        pack(source, folder, PackOptions(**options), labels, progress=False)
        return str(folder)

    return make


def _pack_sample(folder, multi_label):
    options = PackOptions(
        images=ImageOptions(short_side=40),
        fractions={"train": 0.7, "val": 0.1, "test": 0.2},
        examples_per_shard=60,
        workers=1,
    )
    pack(sample.make_source(300, multi_label=multi_label), folder, options, progress=False)
    return str(folder)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """300 drawn examples of 20 classes, 40 pixels a side."""
    return str(shared_folder(tmp_path_factory, "sample", lambda folder: _pack_sample(folder, multi_label=False)))


@pytest.fixture(scope="session")
def multi_label_dataset(tmp_path_factory):
    """The same pictures and texts, with two tags each."""
    return str(shared_folder(tmp_path_factory, "tags", lambda folder: _pack_sample(folder, multi_label=True)))


@pytest.fixture(scope="session")
def make_small_features():
    """`make_features` with small pictures and short texts."""
    from mm_keras.data.make_features import make_features

    return functools.partial(
        make_features,
        image_size=(32, 32),
        image_fit="stretch",
        text_fields=("title", "description"),
        max_tokens={"title": 8, "description": 16},
    )


@pytest.fixture(scope="session")
def features(dataset, make_small_features):
    return make_small_features(dataset)


@pytest.fixture(scope="session")
def multi_label_features(multi_label_dataset, make_small_features):
    return make_small_features(multi_label_dataset)


@pytest.fixture(scope="session")
def make_spec():
    """A function: a FeatureSpec without a dataset."""
    words = TokenizerSpec("words", ("[PAD]", "[UNK]", "oak", "steel", "mug", "blue", "the"))

    def make(image=(16, 16), fields=("title",), num_labels=4, multi_label=False, tokenizer=words, max_tokens=6) -> FeatureSpec:
        return FeatureSpec(
            image=ImageSpec(image, "stretch") if image else None,
            texts=tuple(TokenText(field, tokenizer, max_tokens) for field in fields),
            labels=tuple(f"label {index}" for index in range(num_labels)),
            multi_label=multi_label,
        )

    return make


@pytest.fixture(scope="session")
def make_inputs():
    """A function: random inputs of a model, all of them present."""

    def make(features: FeatureSpec, batch_size: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        inputs = {}
        for name, (shape, dtype) in features.inputs().items():
            if name == "image":
                inputs[name] = rng.uniform(0, 255, (batch_size, *shape)).astype("float32")
            elif dtype == "int32":
                inputs[name] = rng.integers(1, 7, (batch_size, *shape), dtype="int32")
            elif shape:
                inputs[name] = np.arange(shape[0]) < rng.integers(1, shape[0] + 1, (batch_size, 1))
            else:
                inputs[name] = np.ones(batch_size, bool)
        return inputs

    return make


@pytest.fixture(scope="session")
def build_small_model():
    """`build_two_tower` with the smallest parts that still are what their names say."""
    from mm_keras.model.image_tower import build_small_cnn
    from mm_keras.model.text_encoder import build_small_text_encoder
    from mm_keras.model.tuning_dnn import build_tuning_dnn
    from mm_keras.model.two_tower import build_two_tower

    return functools.partial(
        build_two_tower,
        image_tower=functools.partial(build_small_cnn, widths=(8, 8)),
        text_encoder=functools.partial(build_small_text_encoder, width=8),
        tuning_dnn=functools.partial(build_tuning_dnn, units=(8,)),
        lexical_encoder=None,
        tune_image=False,
    )


@pytest.fixture(scope="session")
def train_small(make_small_features, build_small_model):
    """`train` by gradient on small pictures with a tiny model."""
    from mm_keras.training.train import train

    small = {"make_features": make_small_features, "build_model": build_small_model, "solver": "gradient"}
    return functools.partial(train, **small, epochs=1, batch_size=32, augment=False)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, dataset, train_small):
    """A run folder: two epochs, and a baseline that sees the title alone. For reading; copy it to write into it."""

    def make(folder):
        train_small(dataset, folder, epochs=2, augment=True)
        train_small(dataset, folder / "baselines" / "title", modalities=("title",))

    return shared_folder(tmp_path_factory, "small", make)


@pytest.fixture
def tiny_config(tmp_path, dataset):
    """A config, in a folder of its own, that trains the title's model in a moment."""
    (tmp_path / "tiny.gin").write_text(
        f"""
include "base/experiment.gin"
include "model/small.gin"
train.dataset = '{dataset}'
train.modalities = ("title",)
train.epochs = 1
train_and_evaluate.export = None
make_features.image_size = (16, 16)
make_features.text_fields = ("title",)
"""
    )
    return tmp_path / "tiny.gin"


@pytest.fixture(scope="session")
def multi_label_run(tmp_path_factory, multi_label_dataset, train_small):
    return shared_folder(tmp_path_factory, "tags_run", lambda folder: train_small(multi_label_dataset, folder))


@pytest.fixture(scope="session")
def classes_run(tmp_path_factory, multi_label_dataset, train_small, build_small_model):
    """A multi-label run with a class-embedding head over the words of the label names."""
    from mm_keras.data.text import make_word_tokenizer
    from mm_keras.model.head import build_class_embedding_head
    from mm_keras.runs.class_embeddings import embed_classes

    build = functools.partial(build_small_model, head=build_class_embedding_head)
    words = functools.partial(make_word_tokenizer, min_count=1)
    embed = functools.partial(embed_classes, texts=None, make_tokenizer=words)
    train = functools.partial(train_small, multi_label_dataset, build_model=build, embed_classes=embed)
    return shared_folder(tmp_path_factory, "classes_run", train)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """A Hugging Face folder of a BERT: 2 layers, 2 heads, 32 wide, 64 tokens, with large random weights."""
    pytest.importorskip("tensorflow_text")
    pytest.importorskip("safetensors")
    return str(shared_folder(tmp_path_factory, "tiny_bert", write_tiny_bert))


@pytest.fixture(scope="session")
def save_use(tmp_path_factory):
    """A function: (width=, signature=) -> a SavedModel as the Universal Sentence Encoder's: strings [B] -> float32 [B, width].

    Without a signature it is called itself, as hub models of TensorFlow 2 are; with one, by that name alone.
    """

    def save(width=8, signature=None, make_outputs=lambda embedding: {"outputs": embedding}):
        return write_tiny_use(str(tmp_path_factory.mktemp("models") / "use"), width, signature, make_outputs)

    return save


@pytest.fixture(scope="session")
def bert_run(tmp_path_factory, dataset, tiny_bert, train_small):
    """A run that sees texts alone, through the tiny BERT."""
    from mm_keras.data.make_features import make_features
    from mm_keras.data.text import make_pretrained_tokenizer
    from mm_keras.model.transformer_encoder import build_transformer_encoder
    from mm_keras.model.two_tower import build_two_tower

    train = functools.partial(
        train_small,
        dataset,
        make_features=functools.partial(
            make_features,
            image_size=None,
            text_fields=("title", "description"),
            max_tokens=20,
            make_tokenizer=functools.partial(make_pretrained_tokenizer, source=tiny_bert),
        ),
        build_model=functools.partial(
            build_two_tower, text_encoder=functools.partial(build_transformer_encoder, source=tiny_bert)
        ),
    )
    return shared_folder(tmp_path_factory, "bert_run", train)


@pytest.fixture(scope="session")
def caption_run(tmp_path_factory, multi_label_dataset, train_small):
    """A run that sees descriptions alone, as stems, through an LSTM in both directions."""
    from mm_keras.data.make_features import make_features
    from mm_keras.data.text import make_caption_tokenizer
    from mm_keras.model.text_encoder import build_recurrent_encoder
    from mm_keras.model.two_tower import build_two_tower

    encoder = functools.partial(build_recurrent_encoder, embedding_width=8, width=4, bidirectional=True, dropout=0.1)
    train = functools.partial(
        train_small,
        multi_label_dataset,
        make_features=functools.partial(
            make_features,
            image_size=None,
            text_fields=("description",),
            max_tokens=16,
            make_tokenizer=make_caption_tokenizer,
        ),
        build_model=functools.partial(build_two_tower, text_encoder=encoder),
    )
    return shared_folder(tmp_path_factory, "captions_run", train)


@pytest.fixture(scope="session")
def run_python():
    """A function: runs a script in a fresh interpreter that finds this source tree; gives back its standard output."""

    def run(script: str, *arguments, cwd=None) -> str:
        paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def one_file(tmp_path_factory):
    """300 drawn examples, a file a split: several workers share it, and make of it the batches that one process makes."""
    options = PackOptions(ImageOptions(short_side=40), {"train": 0.7, "val": 0.1, "test": 0.2}, workers=1)

    def make(folder):
        pack(sample.make_source(300), folder, options, progress=False)

    return str(shared_folder(tmp_path_factory, "one_file", make))


@pytest.fixture(scope="session")
def run_topology():
    """A function: (dataset, folder, runs, signal to send, workers) -> exit status of `topology.py`."""
    from mm_keras.distribution.local_workers import run_local_workers
    from tests.mm_keras.distribution import topology

    def run(dataset, folder, runs, kill=None, workers=1):
        command = [sys.executable, topology.__file__, dataset, str(folder), *map(json.dumps, [runs, kill] if kill else [runs])]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(REPOSITORY))
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
            if workers > 1:
                return run_local_workers(command, workers)
            return subprocess.run(command, check=False).returncode

    return run
