"""Saved models load in a process that imports only what loading a run imports."""

import importlib
import json
import pkgutil
import subprocess
import sys

import keras

import mm_keras
from mm_keras.data.text import make_pretrained_tokenizer
from mm_keras.features import FeatureSpec, StringText, TokenText
from mm_keras.model.transformer_encoder import build_transformer_encoder
from mm_keras.model.two_tower import build_two_tower
from mm_keras.runs.run_folder import RunFolder
from mm_keras.tf_text_model.embedder import make_saved_model_embedder
from mm_keras.tf_text_model.encoder import build_saved_model_encoder
from tests.mm_keras.model.harness import LAYERS

_PREDICT = """
import sys
from mm_keras.runs.predict import Predictor
print(Predictor(sys.argv[1]).features.modalities)
"""
_LOAD = """
import json, sys
from mm_keras.runs.load_model import load_model
classes = []
for path in sys.argv[1:]:
    classes.append(type(load_model(path).layers[-1]).__name__)
print(json.dumps(classes))
"""


def _run(code, *arguments):
    process = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_run_that_reads_texts_in_windows_loads_in_a_fresh_process(tiny_bert, tmp_path):
    text = TokenText("title", make_pretrained_tokenizer([], tiny_bert), 16)
    features = FeatureSpec(None, (text,), ("a", "b"), False)

    def encoder(spec, name):
        return build_transformer_encoder(spec, tiny_bert, windows=2, name=name)

    run = RunFolder(tmp_path)
    run.start(overwrite=False)
    features.save(tmp_path)
    build_two_tower(features, text_encoder=encoder).save(run.best)
    assert "title" in _run(_PREDICT, tmp_path)


def _registered_layers():
    """The names of all layers and models of mm_keras that a saved model may name."""
    for module in pkgutil.walk_packages(mm_keras.__path__, "mm_keras."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # Metrics, losses and optimizers are no layers: models are loaded without them.
    return {
        registered.__name__
        for registered in keras.saving.get_custom_objects().values()
        if isinstance(registered, type)
        and issubclass(registered, keras.Layer)
        and registered.__module__.startswith("mm_keras.")
    }


def test_every_registered_layer_loads_in_a_fresh_process(save_use, tmp_path):
    models = {name: part.build() for name, part in LAYERS.items()}
    spec = make_saved_model_embedder(save_use(), trainable=True)
    models["SavedModelEncoder"] = build_saved_model_encoder(StringText("title", spec))
    assert set(models) == _registered_layers()
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
    paths = [tmp_path / f"{name}.keras" for name in models]
    assert json.loads(_run(_LOAD, *paths).splitlines()[-1]) == list(models)
