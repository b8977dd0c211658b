"""Auxiliary heads: in training, each modality also learns to classify alone. Pure Keras."""

from __future__ import annotations

import keras

from mm_keras.features import present

SUFFIX = "_auxiliary"  # ends the names of these heads' outputs, since a field may be called "logits"


class AuxiliaryTraining(keras.Model):
    """A model that is trained with one more head for each modality.

    The loss of each such head is taken over the examples that have its modality, and counts `weight` times as much as the
    loss of the logits. So a strong modality cannot silence the others: an embedding that the fusion would ignore still has to
    tell the classes apart. Validation and metrics look at the logits only.

    Reference: Wang et al., "What Makes Training Multi-modal Classification Networks Hard?" (2020), section 3.3, equation 3
    (there the weights differ by modality and are estimated).

    Args:
        inputs: the model's inputs by name, with the presence flag of every modality.
        outputs: {"logits", "<modality>_auxiliary"}, float32 [B, num_labels] each.
        weight: the weight of each auxiliary loss, above 0.
    """

    def __init__(self, inputs, outputs, weight: float, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.weight = weight

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        total = super().compute_loss(x, y, y_pred["logits"], sample_weight, training)
        if not training:
            return total
        for name, logits in y_pred.items():
            if name == "logits":
                continue
            flags = keras.ops.cast(x[present(name.removesuffix(SUFFIX))], "float32")
            total = total + self.weight * self.loss(y, logits, flags if sample_weight is None else flags * sample_weight)
        return total

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred["logits"], sample_weight)
