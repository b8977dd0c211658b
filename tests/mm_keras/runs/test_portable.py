"""Exports for ONNX and LiteRT: equal to the model, for clients without TensorFlow, refused where they lose much."""

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mm_keras.cli.main import main
from mm_keras.data.text import make_tokenizer
from mm_keras.model.text_encoder import build_recurrent_encoder
from mm_keras.model.tuning_dnn import build_tuning_dnn
from mm_keras.runs import portable_client
from mm_keras.runs.export_assets import first_records
from mm_keras.runs.parity import ParityError
from mm_keras.runs.portable import describe_tokenizer, export_portable
from mm_keras.runs.portable_formats import FILES, NotConvertibleError, check_packages, convert
from mm_keras.runs.predict import Predictor
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.verify import verify

PACKAGES = {"onnx": "onnxruntime", "litert": "ai_edge_litert"}
# What the client asks with neither TensorFlow nor Keras nor mm_keras to be had.
ALONE = """
import json, sys
for name in ("tensorflow", "keras", "mm_keras", "tfrecords_tools"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
from client import Client
client = Client(sys.argv[1])
examples = [{name: bytes.fromhex(v) if name == "image" else v for name, v in e.items()} for e in json.load(sys.stdin)]
print(json.dumps([client.scores(example).tolist() for example in examples]))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory, trained_run):
    """A function: (format, precision) -> the folder of an export of the trained run; the same one for the same arguments."""

    @functools.cache
    def make(form, precision="float32"):
        pytest.importorskip(PACKAGES[form])
        run = shutil.copytree(trained_run, tmp_path_factory.mktemp("portable") / "run")
        return export_portable(run, form, precision, num_checked=40)

    return make


@pytest.mark.ci
@pytest.mark.parametrize("form", ["onnx", "litert"])
def test_client_without_tensorflow_answers_as_the_model(exported, form, trained_run):
    folder = exported(form)
    run = RunFolder(trained_run)
    predictor = Predictor(trained_run)
    raw = first_records(run.dataset(None).split("test"), predictor.features, 8)
    examples = [dict(zip(raw, values, strict=True)) for values in zip(*raw.values(), strict=True)]
    examples += [
        {**examples[0], "title": b"  "},
        {**examples[1], "image": b""},
        {**examples[2], "description": b"Oak\xe6\x9d\xaf!"},
    ]
    expected = predictor.probabilities(examples)
    asked = [{name: v.hex() if name == "image" else v.decode() for name, v in example.items()} for example in examples]
    command = [sys.executable, "-I", "-c", ALONE, str(folder)]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("form", "precision"), [("onnx", "float16"), ("onnx", "int8"), ("litert", "float16"), ("litert", "int8")]
)
@pytest.mark.ci
def test_smaller_weights_make_a_smaller_file_that_answers_alike(make_spec, make_inputs, build_small_model, form, precision):
    pytest.importorskip(PACKAGES[form])
    features = make_spec(image=None)
    model = build_small_model(features, tuning_dnn=functools.partial(build_tuning_dnn, units=(256, 256)))
    whole, small = (convert(model, features, form, each) for each in ("float32", precision))
    assert len(small) < (0.6 if precision == "float16" else 0.45) * len(whole)
    inputs = make_inputs(features, 1)
    answers = []
    for content in (whole, small):
        path = Path(tempfile.mkdtemp()) / FILES[form]
        path.write_bytes(content)
        answers.append(portable_client.open_model(path)(inputs))
    np.testing.assert_allclose(answers[0], keras.ops.softmax(model(inputs)), atol=1e-6)
    assert 0 < np.abs(answers[1] - answers[0]).max() < 0.01


@pytest.mark.ci
def test_what_smaller_weights_cost_is_measured(exported):
    measured = json.loads((exported("onnx", "int8") / "preprocess.json").read_text())["measured"]
    assert measured["records"] == 40 and measured["trained"] - measured["exported"] <= 0.01
    assert 0 < measured["largest_difference"] < 0.1 and measured["milliseconds"] > 0


@pytest.mark.ci
def test_export_that_loses_too_much_is_refused_and_not_kept(tmp_path, trained_run):
    pytest.importorskip("onnxruntime")
    run = shutil.copytree(trained_run, tmp_path / "run")
    with pytest.raises(ParityError, match=r"int8 weights the top_1 falls by .* \(allowed: -1, export_portable"):
        export_portable(run, "onnx", "int8", num_checked=8, most_lost=-1)
    assert not list((run / "export_onnx").iterdir())


@pytest.mark.ci
def test_command_writes_the_next_version_which_can_be_verified(exported, capsys):
    run = exported("onnx").parent.parent
    assert main(["export", str(run), "--format=onnx"]) == 0
    assert "exported" in capsys.readouterr().out
    assert sorted(path.name for path in (run / "export_onnx").iterdir()) == ["1", "2"]
    content = bytearray((run / "export_onnx" / "2" / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "export_onnx" / "2" / "model.onnx").write_bytes(content)
    assert any("model.onnx" in problem for problem in verify(run))
    assert main(["export", str(run), "--precision=int8"]) == 2
    assert "--precision goes with --format=onnx or litert" in capsys.readouterr().err


def test_strings_cannot_be_converted(trained_run, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("mm_keras.runs.portable.TokenText", type(None))  # as if a SavedModel of strings read the texts
    with pytest.raises(NotConvertibleError, match=r"text fields \['title', 'description'\] go through a SavedModel of strings"):
        export_portable(trained_run, "onnx")


@pytest.mark.ci
@pytest.mark.parametrize("form", ["onnx", "litert"])
@pytest.mark.parametrize("part", ["GELU", "LSTM"])
def test_transformers_and_recurrent_encoders_can_be_converted(make_spec, make_inputs, build_small_model, form, part, tmp_path):
    pytest.importorskip(PACKAGES[form])
    features = make_spec(image=None)
    if part == "GELU":
        small = build_small_model(features)
        model = keras.Model(small.input, keras.layers.Dense(4, "gelu")(small.output))
    else:
        model = build_small_model(features, text_encoder=functools.partial(build_recurrent_encoder, width=8))
    (tmp_path / FILES[form]).write_bytes(convert(model, features, form, "float32"))
    inputs = make_inputs(features, 1)
    answers = portable_client.open_model(tmp_path / FILES[form])(inputs)
    np.testing.assert_allclose(answers, keras.ops.softmax(model(inputs)), atol=1e-6)


@pytest.mark.ci
def test_operations_that_a_format_lacks_are_listed(make_spec, build_small_model):
    pytest.importorskip("ai_edge_litert")

    class Sorted(keras.layers.Layer):
        def call(self, inputs):
            return tf.cast(tf.raw_ops.Betainc(a=inputs, b=inputs, x=inputs), "float32")

    features = make_spec(image=None)
    model = build_small_model(features)
    odd = keras.Model(model.input, Sorted()(model.output))
    for form in ("litert", "onnx"):
        with pytest.raises(NotConvertibleError, match="has no Betainc: export a SavedModel"):
            convert(odd, features, form, "float32")


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"--format=litert needs ai_edge_litert: pip install 'mm_keras\[litert\]'"):
        check_packages("litert")


TEXTS = ["Oak mug", "  STEEL-blue, 2 mugs! ", "Éclair ÀÉ naïve", "杯子 oak茶杯", "กาแฟ", "", "a_b c.d", "İstanbul ǅ", "x" * 300]


@pytest.mark.parametrize("kind", ["words", "wordpiece"])
def test_client_tokenizes_as_the_graph_does(kind, make_spec, tiny_bert, dataset):
    if kind == "wordpiece":
        from mm_keras.data.text import make_pretrained_tokenizer

        spec = make_pretrained_tokenizer([], tiny_bert)
    else:
        spec = make_spec().texts[0].tokenizer
        spec = type(spec)("words", (*spec.vocabulary, "杯", "茶", "éclair", "2", "กา", "ก", "naïve"))
    tokenize = portable_client.make_tokenizer(describe_tokenizer(spec))
    ids, mask = (value.numpy() for value in make_tokenizer(spec)(tf.constant([text.strip() for text in TEXTS]), 12))
    for text, row, kept in zip(TEXTS, ids, mask, strict=True):
        assert (tokenize(text.strip(), 12) if text.strip() else []) == row[kept].tolist(), text


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (16, 16), (20, 20), (15, 200), (9, 9), (100, 30), (300, 201)])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_client_fits_pictures_as_the_graph_does(shape, fit):
    from mm_keras.data.images import fit_image
    from mm_keras.features import ImageSpec

    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), "uint8")
    for size in ((16, 16), (24, 12)):
        expected = fit_image(image, ImageSpec(size, fit)).numpy()
        np.testing.assert_allclose(portable_client.fit(image, size, fit), expected, atol=2e-3)


def test_client_puts_pictures_on_white_and_upright(encode_image):
    clear = Image.new("RGBA", (4, 6), (255, 0, 0, 0))
    assert (portable_client.decode(encode_image(clear, "PNG")) == 255).all()
    turned = Image.new("RGB", (4, 6))
    exif = turned.getexif()
    exif[0x0112] = 6
    assert portable_client.decode(encode_image(turned, "JPEG", exif=exif)).shape == (4, 6, 3)
    with pytest.raises(ValueError, match="the picture cannot be read"):
        portable_client.decode(b"no picture")
