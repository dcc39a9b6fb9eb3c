"""The task of an encoder of texts without labels: it predicts masked tokens.

The language model step of ULMFiT (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.2), with the
objective of BERT: a pretrained encoder adapts to the words and the style of the texts before a classifier is trained.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MetricCollection

from headstart.backbones.base import Backbone
from headstart.backbones.text_encoder import TextEncoder
from headstart.errors import UsageError
from headstart.heads.linear import LinearHead
from headstart.inputs.base import Preprocess
from headstart.inputs.transforms import Transform
from headstart.metrics.language_model import Perplexity, TokenAccuracy
from headstart.tasks.base import Task
from headstart.tasks.objective import Objective


class MaskedLanguageModelTask(Task):
    """Texts with masked tokens -> scores of all tokens of the vocabulary, at each masked place; labels are not used.

    The head is the one of the pretraining if the file of the weights has it; else it is new. The encoder of the run is
    then the `model.weights` of a classifier.

    Args:
        backbone: an encoder of texts whose tokenizer has a mask token.
        head: not used; only the default, because this task has a head of its own.
        mask_fraction: of the tokens of a text that are predicted.
        class_weights, mixing, test_time: None, because nothing here has a class.
        options: other arguments of `Task`.

    Raises:
        UsageError: the backbone is no encoder of texts, or a setting that this task does not have.
    """

    needs_labels = False
    recipe = "adapt_language_model"
    takes_activations = False
    afterwards = (
        "train a classifier from it with: python src/train.py model=<the same> model.weights={run} data=<texts with "
        "labels>"
    )

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: Callable[..., nn.Module] | None = None,
        mask_fraction: float = 0.15,
        class_weights: Sequence[float] | None = None,
        mixing: Any = None,
        test_time: Any = None,
        **options: Any,
    ):
        if not isinstance(backbone, TextEncoder):
            raise UsageError(
                f"a language model needs an encoder of texts, not {type(backbone).__name__}: choose model=minilm, "
                "model=bert, or model=transformers model.name=<name>"
            )
        given = {"mixing": mixing, "test_time": test_time, "data.class_weights": class_weights}
        given["head"] = None if getattr(head, "func", LinearHead) is LinearHead else head
        if unused := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"a language model has no use for {' and '.join(unused)}: leave it out")
        super().__init__(backbone=backbone, head=backbone.language_model_head(), objective=TrueTokens(), **options)
        self.mask_fraction = mask_fraction

    def transforms(
        self, augmentation: Callable[[Preprocess], Transform] | None, seed: int
    ) -> tuple[Transform, Preprocess]:
        """As in `Task`: other masks in every epoch of training, the same ones in every evaluation."""
        if augmentation:
            augmentation(self.backbone.preprocess)  # refuses one for pictures; there is none for texts
        return self.backbone.masked(self.mask_fraction, seed)

    def outputs(self, batch: tuple[dict[str, Tensor], Any]) -> tuple[Tensor, Tensor]:
        """Scores `(masked tokens, vocabulary)` of the tokens at the masked places, and the true tokens there."""
        inputs, _ = batch
        places = inputs["targets"] >= 0
        hidden = self.backbone.vectors(inputs["tokens"])[places]  # first, because the vocabulary is large
        return self.head(hidden, self.backbone.token_embedding.weight), inputs["targets"][places]


class TrueTokens(Objective):
    """One of the tokens of a vocabulary at each place: cross-entropy, accuracy and perplexity."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of logits `(tokens, vocabulary)` against the true tokens `(tokens,)`; 0 if there are none."""
        return functional.cross_entropy(logits.float(), targets, reduction="sum") / self.batch_weight(targets)

    def batch_weight(self, targets: Tensor) -> int:
        """Weight of this batch in the mean loss over batches: the number of its masked tokens."""
        return max(len(targets), 1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits `(tokens, vocabulary)` -> probabilities."""
        return logits.float().softmax(dim=1)

    def training_metrics(self) -> MetricCollection:
        """Metrics that are cheap enough for every training step."""
        return MetricCollection({"acc": TokenAccuracy()})

    def evaluation_metrics(self) -> MetricCollection:
        """Metrics over probabilities `(tokens, vocabulary)` and the true tokens `(tokens,)`."""
        return MetricCollection({"acc": TokenAccuracy(), "perplexity": Perplexity()})
