"""Which words led to a prediction: integrated gradients of the token embeddings, with captum.

Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365. The words are blended in, from a text that has the token
`[MASK]` (or another one that says nothing) in place of each word, to the real text. The weights of all words add up to
the difference between the scores of the two. The baseline is not zero, because zeros would count as padding.
"""

import torch
from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.errors import UsageError
from headstart.evaluation.explanations.attribution import ChosenLogit, gradients, require_captum
from headstart.inputs.text.preprocess import TextPreprocess
from headstart.inputs.text.words import BLANKS, Word, blanked, merged_into_words

STEPS = 32
"""Points between the baseline and the text at which gradients are computed."""
AT_ONCE = 8192
"""At most this number of tokens in one pass, for the memory."""


def explain(network: nn.Module, backbone: Backbone, texts: list[str], classes: list[int]) -> list[list[Word]]:
    """How much each word raises the logit of a class.

    Args:
        network: tokens -> logits `(batch, num_outputs)`; a single logit belongs to class 1, its negative to class 0.
        backbone: the part of the network that has the embeddings and the preprocessing.
        texts: any number.
        classes: one class index per text.

    Returns:
        The words of each text in order, and their shares of the logit; words behind `max_length` are missing.

    Raises:
        UsageError: captum is not installed, or the tokenizer has no token that can replace a word.
    """
    require_captum()
    preprocess = backbone.preprocess
    assert isinstance(preprocess, TextPreprocess)
    layer = backbone.token_embedding
    found = []
    for text, chosen in zip(texts, classes, strict=True):
        baseline = blanked(preprocess, text)
        if baseline is None:
            raise UsageError(f"explain needs a tokenizer with one of the tokens {', '.join(BLANKS)}: leave explain out")
        weights = _attributed(ChosenLogit(network), layer, preprocess(text), baseline, chosen)
        found.append(merged_into_words(preprocess, text, weights))
    return found


def _attributed(network: nn.Module, layer: nn.Module, tokens: Tensor, baseline: Tensor, chosen: int) -> list[float]:
    """The weight of each token of one text: `(tokens,)` of captum, summed over the features.

    One text at a time: its `STEPS` blends are a batch without padding.
    """
    from captum.attr import LayerIntegratedGradients

    device = layer.weight.device
    with gradients():
        shares = LayerIntegratedGradients(network, layer).attribute(
            tokens[None].to(device),
            baseline[None].to(device),
            additional_forward_args=torch.tensor([chosen], device=device),
            n_steps=STEPS,
            internal_batch_size=max(1, AT_ONCE // len(tokens)),
        )
    return shares.detach().sum(dim=2)[0].tolist()
