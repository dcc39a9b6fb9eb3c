"""Training from scratch, the baseline of transfer learning."""

from headstart.finetuning.full import Full


class Scratch(Full):
    """All layer groups are trained from random weights, even if the model names pretrained weights."""

    random_weights = True
