"""Cuts a model in two behind its tuned embeddings, so that its towers run only once where presence is varied. Pure Keras."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from mm_keras.features import IMAGE, FeatureSpec, present, safe_name
from mm_keras.model.late_fusion import Combination, fused_models, who_votes
from mm_keras.model.two_tower_parts import TwoTowerParts, part_name

NOT_EMBEDDED = "a late fusion joins answers and not embeddings; embed with the runs that it was made of"


def split_at_embeddings(model: keras.Model, modalities: Sequence[str]) -> tuple[keras.Model, keras.Model]:
    """Cuts a two-tower model, or every model of a late fusion, behind the tuned embeddings.

    The encoders also pass on the tokens of fields that have a lexical encoder, which then runs in the second model: tokens take
    less room than bags of words.

    Args:
        model: a model that `build_two_tower` or `build_late_fusion` built.
        modalities: all modalities of its features, in their order.

    Returns:
        (encoders: the model's inputs -> {"<modality>_embedding": [B, D], …};
        the rest: the outputs of the encoders and {"<modality>_present": bool [B]} -> logits [B, num_labels]). Of a late fusion,
        the names of these outputs begin with the name of the model that they are for, such as "model_0_title_embedding".
    """
    fused = fused_models(model)
    return _split_late_fusion(model, *fused, modalities) if fused else _split_two_tower(model, modalities)


def build_embedder(model: keras.Model, modalities: Sequence[str]) -> keras.Model:
    """The part of a two-tower model before its head.

    Args:
        model: a model that `build_two_tower` or `build_solved_two_tower` built.
        modalities: all modalities of its features, in their order.

    Returns:
        model: the model's inputs -> {"<modality>_embedding": the tuned embedding [B, D], …, "fused": the fused embedding
        [B, D] of the modalities that are present}.

    Raises:
        ValueError: for a late fusion, which has no fused embedding.
    """
    if fused_models(model):
        raise ValueError(NOT_EMBEDDED)
    parts = TwoTowerParts(model.layers)
    tuned = {modality: parts.tuned_tensor(modality) for modality in modalities}
    embeddings = {modality: parts.join_words(modality, tensor, model.input) for modality, tensor in tuned.items()}
    named = {f"{safe_name(modality)}_embedding": tensor for modality, tensor in tuned.items()}
    return keras.Model(model.input, named | {"fused": parts.fuse(embeddings, model.input)}, name="embedder")


def split_in_towers(model: keras.Model, features: FeatureSpec) -> tuple[dict[str, keras.Model], keras.Model]:
    """Cuts a two-tower model behind its tuned embeddings, each modality for itself, so that a missing one takes no time.

    Args:
        model: a model that `build_two_tower` or `build_solved_two_tower` built.
        features: the features that the model was built for.

    Returns:
        (modality -> a model: the inputs of that modality -> its tuned embedding [B, D], or [B, T, D] of a sequence;
        the rest: {"<modality>_embedding", "<modality>_present": bool [B], and the tokens of fields with a lexical encoder} ->
        {"logits": [B, num_labels], "fused": [B, D]}).

    Raises:
        ValueError: for a late fusion, whose models have towers of their own.
    """
    if fused_models(model):
        raise ValueError("a late fusion has no towers: its models have")
    parts = TwoTowerParts(model.layers)
    encoded, inputs, embeddings = _behind_towers(parts, model, features.modalities)
    fused = parts.fuse(embeddings, inputs)
    towers = {}
    for modality in features.modalities:
        names = [IMAGE] if modality == IMAGE else features.text(modality).batch_names().values()
        own_inputs = {name: model.input[name] for name in names}
        towers[modality] = keras.Model(own_inputs, encoded[part_name(modality, "embedding")], name=part_name(modality, "tower"))
    return towers, keras.Model(inputs, {"logits": parts.head(fused), "fused": fused}, name="rest")


def build_fusion_of_encoded(model: keras.Model, features: FeatureSpec) -> keras.Model:
    """The part of a two-tower model between its encoders and its head.

    Args:
        model: a model that `build_two_tower` or `build_solved_two_tower` built.
        features: the features that the model was built for.

    Returns:
        model: {"<modality>_encoded": the output of the encoder, "<modality>_present": bool [B], and the tokens of fields with a
        lexical encoder} -> the fused embedding [B, D], which `build_embedder` calls "fused".
    """
    parts = TwoTowerParts(model.layers)
    encoded = {modality: parts.encoded(modality).output for modality in features.modalities}
    outer = {part_name(modality, "encoded"): tensor for modality, tensor in encoded.items()}
    for modality in features.modalities:
        words = parts.words(modality)
        outer |= {part_name(modality, part): model.input[part_name(modality, part)] for part in (words.input if words else ())}
    inputs = _inputs_like(outer) | _presence_inputs(features.modalities)
    embeddings = {
        modality: parts.join_words(modality, parts.tune(modality, inputs[part_name(modality, "encoded")]), inputs)
        for modality in features.modalities
    }
    return keras.Model(inputs, parts.fuse(embeddings, inputs), name="fusion_of_encoded")


def _split_two_tower(model: keras.Model, modalities: Sequence[str]) -> tuple[keras.Model, keras.Model]:
    parts = TwoTowerParts(model.layers)
    encoded, inputs, embeddings = _behind_towers(parts, model, modalities)
    return (
        keras.Model(model.input, encoded, name="encoders"),
        keras.Model(inputs, parts.classify(embeddings, inputs), name="fusion_and_head"),
    )


def _behind_towers(
    parts: TwoTowerParts, model: keras.Model, modalities: Sequence[str]
) -> tuple[dict[str, keras.KerasTensor], dict[str, keras.KerasTensor], dict[str, keras.KerasTensor]]:
    """(the outputs of the towers by name, new inputs for these and for presence, embeddings from these inputs by modality)."""
    encoded = {part_name(modality, "embedding"): parts.tuned_tensor(modality) for modality in modalities}
    for modality in modalities:
        words = parts.words(modality)
        names = [part_name(modality, part) for part in words.input] if words else []
        encoded |= {name: model.input[name] for name in names}
    inputs = _inputs_like(encoded) | _presence_inputs(modalities)
    embeddings = {
        modality: parts.join_words(modality, inputs[part_name(modality, "embedding")], inputs) for modality in modalities
    }
    return encoded, inputs, embeddings


def _split_late_fusion(
    model: keras.Model, combination: Combination, models: Sequence[keras.Model], modalities: Sequence[str]
) -> tuple[keras.Model, keras.Model]:
    flags = _presence_inputs(modalities)
    encoded, inputs, answers, voting = {}, dict(flags), [], []
    for part in models:
        part_modalities = [modality for modality in modalities if present(modality) in part.input]
        encoders, fusion_and_head = split_at_embeddings(part, part_modalities)
        encoders.name, fusion_and_head.name = f"{part.name}_encoders", f"{part.name}_rest"
        outputs = encoders({name: model.input[name] for name in part.input})
        names = {name: f"{part.name}_{name}" for name in outputs}
        part_encoded = {names[name]: tensor for name, tensor in outputs.items()}
        encoded |= part_encoded
        inputs |= _inputs_like(part_encoded)
        part_flags = {present(modality): flags[present(modality)] for modality in part_modalities}
        answers.append(fusion_and_head({name: inputs[names[name]] for name in outputs} | part_flags))
        voting.append(who_votes(list(part_flags.values())))
    logits = combination(ops.stack(answers, axis=1), ops.stack(voting, axis=1))
    return keras.Model(model.input, encoded, name="encoders"), keras.Model(inputs, logits, name="behind_encoders")


def _inputs_like(tensors: dict[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    """A new input for each tensor, of its name, shape and dtype."""
    return {name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name) for name, tensor in tensors.items()}


def _presence_inputs(modalities: Sequence[str]) -> dict[str, keras.KerasTensor]:
    return {present(modality): keras.Input((), dtype="bool", name=present(modality)) for modality in modalities}
