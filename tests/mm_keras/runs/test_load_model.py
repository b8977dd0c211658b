"""Saved models load in a process that knows nothing but the run folder."""

import subprocess
import sys

from mm_keras.data.text import make_pretrained_tokenizer
from mm_keras.features import FeatureSpec, TokenText
from mm_keras.model.transformer_encoder import build_transformer_encoder
from mm_keras.model.two_tower import build_two_tower
from mm_keras.runs.run_folder import RunFolder

_PREDICT = """
import sys
from mm_keras.runs.predict import Predictor
print(Predictor(sys.argv[1]).features.modalities)
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
