"""The head of the pretraining in a file of weights, which the encoder itself does not need."""

from collections.abc import Mapping

from torch import Tensor

PARTS = {
    "dense.": (
        "cls.predictions.transform.dense.", "lm_head.dense.", "vocab_transform.", "generator_predictions.dense.",
        "predictions.dense.",
    ),
    "norm.": (
        "cls.predictions.transform.LayerNorm.", "lm_head.layer_norm.", "vocab_layer_norm.",
        "generator_predictions.LayerNorm.", "predictions.LayerNorm.",
    ),
    "bias": (
        "cls.predictions.bias", "lm_head.bias", "vocab_projector.bias", "generator_lm_head.bias", "predictions.bias",
    ),
}  # fmt: skip
"""Our prefix -> the same in files of BERT, of RoBERTa and its relatives, of DistilBERT, of ELECTRA, and of ALBERT."""
NAMES = {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias"}


def head_of_pretraining(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under the names of `LanguageModelHead`; empty if the file does not have all of them.

    The head in an earlier run has these names already.
    """
    if state.keys() == NAMES:
        return dict(state)
    found = {
        ours + name.removeprefix(theirs): tensor
        for ours, others in PARTS.items()
        for theirs in others
        for name, tensor in state.items()
        if name.startswith(theirs)
    }
    return {name: found[name] for name in NAMES} if found.keys() >= NAMES else {}
