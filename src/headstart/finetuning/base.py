"""When each layer group learns. How fast it learns is `optim.py`'s business."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BaseFinetuning
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.errors import UsageError

log = logging.getLogger(__name__)
BATCH_NORM = ("frozen", "adapt_stats", "train")


class StagedFinetuning(BaseFinetuning):
    """Freezes and unfreezes layer groups; a strategy says which learn at which epoch, and nothing else is remembered.

    What is frozen is in eval mode, has no gradient and is bit for bit left alone. Lightning's own `freeze` and
    `unfreeze_and_add_param_group` are not used: the first leaves BatchNorm normalising with batch statistics, the
    second breaks schedulers and resumption; here every group is in the optimizer from the first step.

    Args:
        batch_norm: what BatchNorm does in groups that learn: `frozen` (statistics and affine parameters stay),
            `adapt_stats` (statistics follow the data) or `train` (both). In frozen groups it is always frozen, in a
            backbone without pretrained weights it always trains.
    """

    def __init__(self, batch_norm: str = "frozen"):
        super().__init__()
        if batch_norm not in BATCH_NORM:
            raise UsageError(f"finetuning.batch_norm={batch_norm}: choose one of {', '.join(BATCH_NORM)}")
        self.batch_norm = batch_norm

    @abstractmethod
    def learning(self, epoch: int, groups: Sequence[str]) -> set[str]:
        """The names of the backbone's groups that learn in an epoch (0-based), out of `groups`, stem first."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuses what cannot work. Nothing is frozen here: DDP must first see every parameter (see `on_fit_start`)."""
        name = type(trainer.strategy).__name__
        if "DeepSpeed" in name or "FSDP" in name:
            raise UsageError(f"staged finetuning does not run under {name}: use trainer=ddp or a single device")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freezes after DDP has wrapped the model: it never synchronises what was frozen before."""
        if not pl_module.backbone.pretrained:
            log.info("the backbone has no pretrained weights: nothing is frozen, everything learns at the head's rate")
        self.apply(pl_module, trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Applies the epoch's stage; doing so again changes nothing."""
        self.apply(pl_module, trainer.current_epoch)

    def apply(self, task: pl.LightningModule, epoch: int) -> None:
        """Sets gradients and modes of every group as the strategy wants them in this epoch."""
        from_scratch = not task.backbone.pretrained
        names = [group.name for group in task.layer_groups]
        learning = set(names) if from_scratch else self.learning(epoch, names)
        kept: list[nn.Module] = []
        for group in task.layer_groups:
            group.set_trainable(group.name in learning)
            if group.name not in learning:
                kept += group.modules.values()
            elif not from_scratch:
                kept += self._hold_batch_norm(group.modules.values())
        task.kept_in_eval = kept
        task.train()

    def _hold_batch_norm(self, modules: Any) -> list[nn.Module]:
        """Applies the policy to the BatchNorms of a learning group; returns those that stay in eval mode."""
        norms = [module for module in modules if isinstance(module, _BatchNorm)]
        if self.batch_norm != "train":
            for norm in norms:
                norm.requires_grad_(False)
        return norms if self.batch_norm == "frozen" else []

    def freeze_before_training(self, pl_module: pl.LightningModule) -> None:
        """Not used; see `on_fit_start`."""

    def finetune_function(self, pl_module: pl.LightningModule, epoch: int, optimizer: Any) -> None:
        """Not used; see `on_train_epoch_start`."""
