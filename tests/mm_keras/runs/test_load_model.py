"""Saved models load in a process that imports only what loading a run imports."""

import importlib
import json
import pkgutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import mm_keras
from mm_keras.data.text import make_pretrained_tokenizer
from mm_keras.features import FeatureSpec, StringText, TokenText
from mm_keras.model.transformer_encoder import build_transformer_encoder
from mm_keras.model.two_tower import build_two_tower
from mm_keras.runs.run_folder import RunFolder
from mm_keras.tf_text_model.embedder import make_saved_model_embedder
from mm_keras.tf_text_model.encoder import build_saved_model_encoder
from tests.mm_keras.model.harness import LAYERS

# Loads models; then loads runs and answers with them.
_LOAD = """
import json, sys
import numpy as np
from mm_keras.runs.load_model import load_model
request = json.load(sys.stdin)
classes = [type(load_model(path).layers[-1]).__name__ for path in request["models"]]
from mm_keras.runs.run_folder import RunFolder
for folder, inputs, output in request["runs"]:
    with np.load(inputs) as file:
        np.save(output, RunFolder(folder).load_model()[0].predict_on_batch(dict(file)))
print(json.dumps(classes))
"""


def _make_run(folder, tiny_bert):
    """A run that reads texts in windows."""
    text = TokenText("title", make_pretrained_tokenizer([], tiny_bert), 16)
    features = FeatureSpec(None, (text,), ("a", "b"), False)

    def encoder(spec, name):
        return build_transformer_encoder(spec, tiny_bert, windows=2, name=name)

    run = RunFolder(folder)
    run.start(overwrite=False)
    features.save(folder)
    build_two_tower(features, text_encoder=encoder).save(run.best)
    return folder


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


@pytest.fixture(scope="module")
def models(save_use):
    """Layer -> a model that ends in it."""
    models = {name: part.build() for name, part in LAYERS.items()}
    spec = make_saved_model_embedder(save_use(), trainable=True)
    return models | {"SavedModelEncoder": build_saved_model_encoder(StringText("title", spec))}


@pytest.fixture(scope="module")
def loaded(models, tmp_path_factory, trained_run, bert_run, tiny_bert, make_inputs):
    """What one fresh process has loaded: (the last layers of `models`, run -> its answer there and its answer here)."""
    folder = tmp_path_factory.mktemp("loaded")
    request, answers = {"models": [], "runs": []}, {}
    for name, model in models.items():
        model.save(folder / f"{name}.keras")
        request["models"].append(str(folder / f"{name}.keras"))
    for name, run in {"words": trained_run, "wordpiece": bert_run, "windows": _make_run(folder / "run", tiny_bert)}.items():
        model, features = RunFolder(run).load_model()
        inputs, output = folder / f"{name}.npz", folder / f"{name}.npy"
        np.savez(inputs, **make_inputs(features))
        request["runs"].append([str(run), str(inputs), str(output)])
        answers[name] = (output, model.predict_on_batch(make_inputs(features)))
    command = [sys.executable, "-c", _LOAD]
    done = subprocess.run(command, cwd=folder, input=json.dumps(request), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    classes = json.loads(done.stdout.splitlines()[-1])
    return classes, {name: (np.load(output), expected) for name, (output, expected) in answers.items()}


@pytest.mark.ci
def test_every_registered_layer_loads_in_a_fresh_process(models, loaded):
    assert set(models) == _registered_layers()
    assert loaded[0] == list(models)


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["words", "wordpiece", "windows"])
def test_run_answers_the_same_in_a_fresh_process(loaded, kind):
    found, expected = loaded[1][kind]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
