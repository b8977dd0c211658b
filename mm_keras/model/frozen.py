"""What is trained of a model: without its frozen encoders, which need to run only once an example. Pure Keras."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from mm_keras.features import IMAGE, FeatureSpec
from mm_keras.model.auxiliary import SUFFIX, AuxiliaryTraining
from mm_keras.model.cut_tower import cut_tower
from mm_keras.model.layers import MaskedMeanPooling
from mm_keras.model.text_runs import EncodeRuns
from mm_keras.model.two_tower import answer


def frozen_modalities(model: keras.Model, features: FeatureSpec) -> tuple[str, ...]:
    """The modalities whose tower or encoder is not trained at all."""
    return tuple(modality for modality in features.modalities if not _encoder_of(model, modality).trainable_weights)


def freeze(model: keras.Model, modalities: Sequence[str]) -> None:
    """Freezes the towers and encoders of some modalities: a model that was loaded may not know that they were."""
    for modality in modalities:
        _encoder_of(model, modality).trainable = False


def split_at_frozen(
    model: keras.Model,
    features: FeatureSpec,
    modalities: Sequence[str] = (),
    auxiliary_weight: float = 0.0,
    text_runs: int = 1,
) -> tuple[dict[str, keras.Model], keras.Model]:
    """Cuts a two-tower model behind the encoders of some modalities; the layers stay those of the model.

    Args:
        model: of `build_two_tower`.
        features: what it was built for.
        modalities: some of `frozen_modalities`; also the image, if `cut_tower` can cut its tower.
        auxiliary_weight: of the losses of a new linear head for each modality, see `AuxiliaryTraining`; 0: there is none.
        text_runs: in training, so many examples that follow each other have the same texts, see `EncodeRuns`.

    Returns:
        (encoder of each of these modalities, of a tower that is trained in part its frozen part alone;
        trained part: what they give, "<modality>_encoded" or "image_cut", and the inputs that are still needed -> logits
        [B, num_labels]; with auxiliary heads a dict of "logits" and "<modality>_auxiliary").

    Raises:
        ValueError: for a negative weight.
    """
    if auxiliary_weight < 0:
        raise ValueError(f"auxiliary_weight must be at least 0. Received: {auxiliary_weight}")
    parts = {layer.name: layer for layer in model.layers}
    encoders = {modality: _encoder_of(model, modality) for modality in modalities}
    rest = {}  # of encoders that are trained in part
    for modality, encoder in encoders.items():
        if encoder.trainable_weights:
            encoders[modality], rest[modality] = cut_tower(encoder)
    # The lexical encoder reads the tokens, too.
    read = {modality for modality in modalities if f"{modality}_words" not in parts}
    dropped = {name for modality in read for name in _input_names(features, modality).values()}
    inputs = {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
        for name, tensor in model.input.items()
        if name not in dropped
    }
    embeddings, runs = {}, {}
    for modality in features.modalities:
        if modality in rest:
            inputs["image_cut"] = keras.Input(encoders[modality].output.shape[1:], name="image_cut")
            embeddings[modality] = rest[modality](inputs["image_cut"])
        elif modality in encoders:
            name = f"{modality}_encoded"
            inputs[name] = keras.Input(parts[name].output.shape[1:], dtype=parts[name].output.dtype, name=name)
            embeddings[modality] = inputs[name]
        else:
            seen = {part: inputs[name] for part, name in _input_names(features, modality).items()}
            encoder = _encoder_of(model, modality)
            if modality != IMAGE and text_runs > 1:
                if encoder.name not in runs:  # fields may share one
                    runs[encoder.name] = EncodeRuns(encoder, text_runs)
                encoder = runs[encoder.name]
            embeddings[modality] = encoder(seen[IMAGE] if modality == IMAGE else seen)
    logits, tuned = answer(parts, embeddings, inputs)
    if not auxiliary_weight:
        return encoders, keras.Model(inputs, logits, name="trained_part")
    outputs = {"logits": logits}
    for modality, embedding in tuned.items():
        if len(embedding.shape) == 3:  # a sequence: zeros are padding
            embedding = MaskedMeanPooling()(embedding, keras.ops.any(embedding != 0, axis=-1))
        head = keras.layers.Dense(len(features.labels), dtype="float32", name=f"{modality}_auxiliary_head")
        outputs[modality + SUFFIX] = head(embedding)
    return encoders, AuxiliaryTraining(inputs, outputs, auxiliary_weight, name="trained_part")


def _input_names(features: FeatureSpec, modality: str) -> dict[str, str]:
    """What an encoder calls its inputs -> what the model calls them."""
    if modality == IMAGE:
        return {IMAGE: IMAGE}
    (text,) = (text for text in features.texts if text.field == modality)
    return {part: f"{modality}_{part}" for part in text.inputs()}


def _encoder_of(model: keras.Model, modality: str) -> keras.Model:
    name = "image_tower" if modality == IMAGE else f"{modality}_encoder"
    return model.get_layer(name if any(layer.name == name for layer in model.layers) else "text_encoder")
