"""The models, losses and metrics run on another backend of Keras than TensorFlow: shown by running them on JAX."""

import json
import os
import subprocess
import sys

import pytest

from tests.mm_keras.model import harness


def _run_on_jax(what):
    """What `train_on_jax.py` did, as it prints it."""
    pytest.importorskip("jax", reason="models are run on JAX, which is in the extra [dev]")
    # Each function runs once: to compile it takes longer than to run it.
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-m", "tests.mm_keras.model.train_on_jax", what]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    done = json.loads(process.stdout.splitlines()[-1])
    assert not done["imported_tensorflow"]
    return done


@pytest.mark.parametrize(
    ("what", "trained", "fused"),
    [
        pytest.param("some", ["cross-attention"], ["stacking"], marks=pytest.mark.ci),
        pytest.param(
            "models",
            ["concatenation", "gated", "bilinear", "cross-attention"],
            ["weighted sum", "majority vote", "stacking"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_models_are_built_trained_fused_and_loaded_on_jax(what, trained, fused):
    done = _run_on_jax(what)
    assert done["trained"] == [*trained, "part behind a frozen tower"]
    assert done["fused"] == fused
    assert {"make_loss", "make_mse_loss", "make_focal_loss", "make_asymmetric_loss", "binned_mAP"} <= set(done["measured"])


@pytest.mark.slow
def test_every_part_is_saved_and_loaded_on_jax():
    assert {*harness.PARTS, *harness.SLOW_PARTS} <= set(_run_on_jax("parts")["parts"])
