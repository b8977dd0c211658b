"""Strings -> vectors by a frozen SavedModel, such as the Universal Sentence Encoder, which the input pipeline calls.

The trained model gets the vectors only. That is needed on several replicas and on TPUs, which cannot take strings, and enough
for a frozen encoder, which needs no gradient.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from mm_keras.configurable import checked_early, configurable
from mm_keras.downloads import fetching
from mm_keras.features import EmbedderSpec
from mm_keras.tf_text_model.plain_path import plain_path

_KAGGLE = ("kaggle://", "https://www.kaggle.com/models/", "https://kaggle.com/models/")
_TFHUB = "https://tfhub.dev/"
_SIGNATURES = ("serving_default", "default")
_OUTPUTS = ("outputs", "default", "output_0", "embedding", "embeddings")


class SavedModelEmbedder(tf.Module):
    """A callable: texts, string [B] -> vectors, float32 [B, D].

    A SavedModel that is callable, as those of TensorFlow Hub are, is called itself; otherwise the signature "serving_default"
    or "default" is called. It may return one tensor, or several of which one has a name that models of TensorFlow Hub use for
    the vectors.

    Args:
        path: the SavedModel's folder.
        device: the device of its variables. The CPU is where tf.data runs; None, for a SavedModel that is trained,
            leaves the choice to TensorFlow.

    Raises:
        FileNotFoundError: if the folder holds no SavedModel.
        ValueError: if the SavedModel does not make one vector of a string. The message lists its signatures.
    """

    def __init__(self, path: str | Path, device: str | None = "CPU"):
        super().__init__()
        if not (Path(path) / "saved_model.pb").is_file():
            raise FileNotFoundError(f"{path} holds no SavedModel (saved_model.pb)")
        import tensorflow_text  # noqa: F401  registers the ops that multilingual encoders use

        with tf.device(device):
            self._model = tf.saved_model.load(str(plain_path(path)))
        self._function, self._argument = _find_function(self._model, path)
        try:
            answer = self(tf.constant(["a text"]))
        except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            raise ValueError(f"{path} does not make vectors of strings: {error}\n{_describe(self._model)}") from error
        if answer.shape.rank != 2 or answer.dtype != tf.float32:
            received = f"{answer.dtype.name} {list(answer.shape)}"
            raise ValueError(f"{path} makes {received} of one string, not float32 [1, D]\n{_describe(self._model)}")
        self.width = int(answer.shape[-1])

    def trained_variables(self) -> list[tf.Variable]:
        """The variables that are trained, in the order of the SavedModel."""
        function = self._function if self._argument else self._function.__call__.concrete_functions[0]
        return list(function.trainable_variables)

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        answer = self._function(**{self._argument: texts}) if self._argument else self._function(texts)
        if not isinstance(answer, dict):
            return answer
        names = [name for name in _OUTPUTS if name in answer] or list(answer)
        if len(names) > 1 and names[0] not in _OUTPUTS:
            raise ValueError(f"it has the outputs {sorted(answer)}; known are one output, or one named of {sorted(_OUTPUTS)}")
        return answer[names[0]]


def _find_folder(source: str) -> Path:
    """The folder of a SavedModel; the one that a handle names is downloaded, by a package that keeps what it downloads."""
    handle = next((prefix for prefix in (*_KAGGLE, _TFHUB) if source.startswith(prefix)), None)
    if not handle and not Path(source).is_dir():
        raise FileNotFoundError(f"{source!r} is neither a folder with a SavedModel, nor a handle {_KAGGLE[0]}… or {_TFHUB}…")
    if not handle:
        return Path(source)
    instead = "bind make_saved_model_embedder.source to the folder of the SavedModel (saved_model.pb), fetched elsewhere"
    if handle == _TFHUB:
        try:
            from tensorflow_hub import resolve
        except ImportError as error:
            raise ImportError(f"{source} needs tensorflow_hub: pip install 'mm_keras[hub]' ({error}), or {instead}") from error
        with fetching(f"the SavedModel {source}", "tfhub.dev", instead):
            return Path(resolve(source))
    import kagglehub

    with fetching(f"the SavedModel {source}", "Kaggle", instead):
        return Path(kagglehub.model_download(source.removeprefix(handle)))


def check_source(source: str) -> None:
    """Finds the SavedModel of a source, or downloads it; raises what `make_saved_model_embedder` raises if that fails."""
    _find_folder(source)


@configurable
@checked_early(check_source)
def make_saved_model_embedder(source: str, trainable: bool = False) -> EmbedderSpec:
    """Finds a SavedModel of texts, and the width of its vectors.

    Args:
        source: the folder of the SavedModel, or a handle, which is downloaded:
            "kaggle://google/universal-sentence-encoder/tensorFlow2/…" (or the address of that page), or
            "https://tfhub.dev/google/universal-sentence-encoder/4".
        trainable: make the SavedModel a part of the model, and fine-tune it. This needs build_two_tower.text_encoder =
            @build_saved_model_encoder.

    Raises:
        FileNotFoundError: if the source is neither the folder of a SavedModel nor a handle.
        DownloadError: if a handle cannot be fetched.
        ImportError: if the source is a handle of tfhub.dev and tensorflow_hub is not installed.
        ValueError: if the SavedModel does not make one vector of a string.
    """
    folder = _find_folder(source)
    return EmbedderSpec(str(folder.absolute()), SavedModelEmbedder(folder).width, trainable)


def _find_function(model, path):
    """(the function to call, the name of its argument or None)."""
    if callable(model):
        return model, None
    for name in _SIGNATURES:
        if name in model.signatures:
            function = model.signatures[name]
            inputs = function.structured_input_signature[1]
            if len(inputs) == 1 and next(iter(inputs.values())).dtype == tf.string:
                return function, next(iter(inputs))
    raise ValueError(f"{path} has no function of one string input named {' or '.join(_SIGNATURES)}\n{_describe(model)}")


def _describe(model) -> str:
    lines = []
    for name, function in model.signatures.items():
        inputs = {key: f"{spec.dtype.name} {spec.shape}" for key, spec in function.structured_input_signature[1].items()}
        outputs = {key: f"{spec.dtype.name} {spec.shape}" for key, spec in function.structured_outputs.items()}
        lines.append(f"  {name}: {inputs} -> {outputs}")
    return "its signatures:\n" + ("\n".join(lines) or "  none")
