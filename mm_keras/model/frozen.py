"""Cuts a two-tower model behind its frozen encoders, which then run once an example and not once an epoch. Pure Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from mm_keras.features import IMAGE, FeatureSpec, safe_name
from mm_keras.model.auxiliary import SUFFIX, AuxiliaryTraining
from mm_keras.model.cut_text_encoder import cut_text_encoder
from mm_keras.model.cut_tower import cut_tower
from mm_keras.model.layers import MaskedMeanPooling
from mm_keras.model.text_runs import EncodeRuns
from mm_keras.model.two_tower_parts import TwoTowerParts, part_name


def frozen_modalities(model: keras.Model, features: FeatureSpec) -> tuple[str, ...]:
    """The modalities whose tower or encoder has no trainable weight."""
    parts = TwoTowerParts(model.layers)
    return tuple(modality for modality in features.modalities if not parts.encoder(modality).trainable_weights)


def freeze(model: keras.Model, modalities: Sequence[str]) -> None:
    """Freezes the towers and encoders of some modalities: a loaded model may not know that they were frozen in training."""
    parts = TwoTowerParts(model.layers)
    for modality in modalities:
        parts.encoder(modality).trainable = False


def split_at_frozen(
    model: keras.Model,
    features: FeatureSpec,
    modalities: Sequence[str] = (),
    auxiliary_weight: float = 0.0,
    text_runs: int = 1,
) -> tuple[dict[str, keras.Model], keras.Model]:
    """Cuts a two-tower model behind the encoders of some modalities. Both parts share their layers with the model.

    Args:
        model: a model that `build_two_tower` built.
        features: the features that the model was built for.
        modalities: some of `frozen_modalities`, and some whose tower or encoder is trained in part, if `cut_tower` or
            `cut_text_encoder` can cut it.
        auxiliary_weight: the weight of the losses of a new linear head for each modality, see `AuxiliaryTraining`. 0 adds no
            heads.
        text_runs: how many examples that follow each other have the same texts in training, see `EncodeRuns`.

    Returns:
        (modality -> its encoder, or the frozen part of a tower that is trained in part;
        the trained part: {"<modality>_encoded": the output of an encoder, "<modality>_cut": the output of a frozen part (of a
        text encoder float16 [B, T, W]), and the inputs that are still needed}
        -> logits [B, num_labels]. With auxiliary heads, its output is a dict of "logits" and "<modality>_auxiliary").

    Raises:
        ValueError: for a negative weight.
    """
    if auxiliary_weight < 0:
        raise ValueError(f"auxiliary_weight must be at least 0. Received: {auxiliary_weight}")
    parts = TwoTowerParts(model.layers)
    encoders = {modality: parts.encoder(modality) for modality in modalities}
    trained_ends = {}  # modality -> the end of a tower that is trained in part
    cuts = {}  # id of an encoder, which fields may share -> its two parts
    for modality, encoder in encoders.items():
        if encoder.trainable_weights:
            if id(encoder) not in cuts:
                cuts[id(encoder)] = cut_tower(encoder) if modality == IMAGE else cut_text_encoder(encoder)
            encoders[modality], trained_ends[modality] = cuts[id(encoder)]
    inputs = _remaining_inputs(model, features, parts, modalities, trained_ends)
    embeddings, run_encoders = {}, {}
    for modality in features.modalities:
        if modality in trained_ends and modality != IMAGE:
            name, text = part_name(modality, "cut"), features.text(modality)
            shape = (text.max_tokens, encoders[modality].output.shape[-1])
            inputs[name] = keras.Input(shape, dtype="float16", name=name)
            mask = inputs[text.batch_names()["padding_mask"]]
            states = keras.ops.cast(inputs[name], encoders[modality].output.dtype)
            embeddings[modality] = trained_ends[modality]({"hidden_states": states, "padding_mask": mask})
        elif modality in trained_ends:
            name = part_name(modality, "cut")
            inputs[name] = keras.Input(encoders[modality].output.shape[1:], name=name)
            embeddings[modality] = trained_ends[modality](inputs[name])
        elif modality in encoders:
            name, encoded = part_name(modality, "encoded"), parts.encoded(modality).output
            inputs[name] = keras.Input(encoded.shape[1:], dtype=encoded.dtype, name=name)
            embeddings[modality] = inputs[name]
        elif modality == IMAGE:
            embeddings[modality] = parts.encoder(modality)(inputs[IMAGE])
        else:
            encoder = parts.encoder(modality)
            if text_runs > 1:
                if encoder.name not in run_encoders:  # fields may share an encoder
                    run_encoders[encoder.name] = EncodeRuns(encoder, text_runs)
                encoder = run_encoders[encoder.name]
            names = features.text(modality).batch_names()
            embeddings[modality] = encoder({part: inputs[name] for part, name in names.items()})
    tuned = {modality: parts.tune(modality, embedding) for modality, embedding in embeddings.items()}
    tuned = {modality: parts.join_words(modality, embedding, inputs) for modality, embedding in tuned.items()}
    logits = parts.classify(tuned, inputs)
    if not auxiliary_weight:
        return encoders, keras.Model(inputs, logits, name="trained_part")
    outputs = {"logits": logits} | _auxiliary_logits(tuned, len(features.labels))
    return encoders, AuxiliaryTraining(inputs, outputs, auxiliary_weight, name="trained_part")


def _remaining_inputs(
    model: keras.Model,
    features: FeatureSpec,
    parts: TwoTowerParts,
    modalities: Sequence[str],
    trained_ends: Mapping[str, keras.Model],
) -> dict[str, keras.KerasTensor]:
    """New inputs for all that is read behind the encoders of `modalities`, by name."""
    unread: set[str] = set()
    for modality in modalities:
        if modality == IMAGE:
            unread.add(IMAGE)
        elif not parts.words(modality):  # a lexical encoder would read the tokens, too
            needed = ("padding_mask",) if modality in trained_ends else ()
            unread.update(name for part, name in features.text(modality).batch_names().items() if part not in needed)
    return {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
        for name, tensor in model.input.items()
        if name not in unread
    }


def _auxiliary_logits(tuned: Mapping[str, keras.KerasTensor], num_labels: int) -> dict[str, keras.KerasTensor]:
    """The logits [B, num_labels] of a new linear head for each modality, by the names of the outputs."""
    outputs = {}
    for modality, embedding in tuned.items():
        if len(embedding.shape) == 3:  # a sequence: zeros are padding
            embedding = MaskedMeanPooling()(embedding, keras.ops.any(embedding != 0, axis=-1))
        head = keras.layers.Dense(num_labels, dtype="float32", name=part_name(modality, "auxiliary_head"))
        outputs[safe_name(modality) + SUFFIX] = head(embedding)
    return outputs
