"""Shows the progress within an epoch, a validation or a test."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar as LightningProgressBar
from tqdm import tqdm

from headstart.progress import progress_bar


class ProgressBar(LightningProgressBar):
    """One bar per epoch, validation and test, in a terminal; it is erased at the end (`EpochLines` stay).

    Lightning's bars are not used: they count epochs from 0, stay on the screen, and messages are written into them.
    """

    tested_split = "test"
    """The split that Lightning tests: an evaluation tests any split."""

    def __init__(self) -> None:
        super().__init__()
        self.bars: list[tqdm] = []
        self.hidden = False

    def disable(self) -> None:
        """Hides the bars."""
        self.hidden = True

    def enable(self) -> None:
        """Shows the bars again."""
        self.hidden = False

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Begins the bar of an epoch; in a resumed run perhaps in the middle."""
        if not self.bars:
            title = f"epoch {epoch_in_words(trainer.current_epoch, trainer.max_epochs)}"
            self._begin(title, self.total_train_batches, index)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Counts a batch."""
        self.bars[-1].update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Erases the bar of the epoch."""
        self._end()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins the bar of a validation: in place of the one of the epoch, or below it in the middle of an epoch."""
        if self.bars and self.bars[-1].n == self.bars[-1].total:
            self._end()
        self._begin("validation", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Counts a batch."""
        self.bars[-1].update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Erases the bar of the validation."""
        self.bars.pop().close()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins the bar of a test."""
        self._begin(self.tested_split, sum(trainer.num_test_batches))

    def on_test_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Counts a batch."""
        self.bars[-1].update()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Erases the bar of the test."""
        self._end()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Erases all bars, so that the error message stands alone."""
        self._end()

    def _begin(self, title: str, total: int | float, initial: int = 0) -> None:
        total = None if total == float("inf") else int(total)  # data without a length
        self.bars.append(progress_bar(title, total, "batches", initial=initial, hidden=self.hidden))

    def _end(self) -> None:
        while self.bars:
            self.bars.pop().close()


def epoch_in_words(epoch: int, max_epochs: int | None) -> str:
    """An epoch (from 0) as it is shown: `3/16`, from 1; without the length of the run if it is open."""
    return f"{epoch + 1}/{max_epochs}" if max_epochs and max_epochs > 0 else str(epoch + 1)
