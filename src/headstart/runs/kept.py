"""Which of the models of a run was kept, and why: told the same way in every file and page about the run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

LINEAR_PROBE = "linear probe"
FINE_TUNED = "fine-tuned"
AVERAGE = "average, {:g} of the way from the linear probe to the fine-tuned model"
AVERAGE_IN_LIST = "{:g} of the way"
"""The name of an average in a list that begins with the linear probe and ends with the fine-tuned model."""


@dataclass(frozen=True)
class Kept:
    """The model that a run keeps as its best checkpoint.

    Attributes:
        model: in words, such as `linear probe` or `epoch 4`.
        why: in a few words; empty if there is nothing to say.
        candidates: name of each model that was compared -> its score; empty if nothing was compared.
        monitor: the metric of the scores.
    """

    model: str
    why: str = ""
    candidates: Mapping[str, float] = field(default_factory=dict)
    monitor: str = ""

    @property
    def sentence(self) -> str:
        """Model, reason and scores in one line."""
        scores = ", ".join(f"{name} {score:.4f}" for name, score in self.candidates.items())
        return self.model + (f": {self.why}" if self.why else "") + (f" ({scores})" if scores else "")

    @property
    def is_linear_probe(self) -> bool:
        """Whether the backbone is as it was before the training."""
        return self.model == LINEAR_PROBE

    def as_plain_data(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def kept_epoch(checkpoint: Mapping[str, Any], why: str) -> Kept:
    """The model in a checkpoint of the training: without optimizer steps before it, only its head was computed."""
    if checkpoint["global_step"] == 0:
        return Kept(LINEAR_PROBE, why)
    return Kept(f"epoch {checkpoint['epoch'] + 1}", why)
