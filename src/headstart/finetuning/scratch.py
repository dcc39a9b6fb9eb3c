"""What transfer learning is compared with."""

from headstart.finetuning.full import Full


class Scratch(Full):
    """All layer groups learn from random weights, whatever weights the model names."""

    random_weights = True
