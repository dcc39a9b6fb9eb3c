"""Training does not make the CPU wait for the GPU in every step: then the GPU would wait for the CPU, too."""

import traceback

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import MeanMetric

from headstart.training.build import build_data, build_task, build_trainer

# their result, or its shape, is a value that the CPU needs
READ = {
    *("aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::masked_select"),
    *("aten::_unique2", "aten::unique_dim", "aten::equal", "aten::bincount"),
}
KNOWN = (
    "callbacks/divergence.py",  # once in 20 batches and at the end of an epoch
    "mixing.py",  # draws its share on the CPU, and one_hot checks indices on CPUs only
    "utilities/compute.py",  # on a GPU torchmetrics decides there whether values are logits
    "bincount in utilities/data.py",  # counts for a confusion matrix: once a validation batch
)
# on plain numbers they copy from memory that is not pinned
COPY = {torch.tensor, torch.as_tensor}


class Reads(TorchDispatchMode):
    """Records operations whose result the CPU has to read."""

    def __init__(self, places):
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in READ:
            self.places.append(f"{func._schema.name} in {origin()}")
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Records tensors that are made of plain numbers."""

    def __init__(self, places):
        super().__init__()
        self.places = places

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in COPY and not isinstance(args[0], torch.Tensor) and kwargs.get("device") is not None:
            self.places.append(f"{func.__name__} in {origin()}")
        return func(*args, **kwargs)


def origin():
    """The place that caused an operation, in a few lines."""
    frames = [f for f in traceback.extract_stack() if "test_waiting" not in f.filename and "/torch/" not in f.filename]
    return " < ".join(f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno}" for frame in frames[:-6:-1])


class Watch(Callback):
    """Watches from the end of the first step of an epoch to the end of the last, in training or in validation."""

    def __init__(self, split):
        self.places, self.steps = [], 0
        self.modes = [Reads(self.places), Copies(self.places)]
        setattr(self, f"on_{split}_batch_end", self.watch)

    def watch(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            for mode in self.modes:
                mode.__enter__()
        self.steps = batch_idx
        if batch_idx + 1 == (trainer.num_val_batches[0] if trainer.validating else trainer.num_training_batches):
            for mode in reversed(self.modes):
                mode.__exit__(None, None, None)


@pytest.mark.parametrize(
    "overrides",
    [
        ["finetuning=full", "optimizer=adamw", "scheduler=warmup_cosine"],
        ["finetuning=full", "optimizer=sgd", "mixing=mixup", "data.class_weights=balanced"],
        ["finetuning=feature_extraction"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_step_reads_nothing_back(split, overrides, quick):
    watch = Watch(split)
    size = ["data.val_fraction=0.5", "data.num_samples=160"]
    cfg = quick("trainer.max_epochs=1", "trainer.log_every_n_steps=100", *size, *overrides)
    trainer, data = build_trainer(cfg), build_data(cfg)
    task = build_task(cfg, data)
    trainer.callbacks.append(watch)
    trainer.fit(task, data)
    assert watch.steps >= 3
    waits = {place for place in watch.places if not any(known in place for known in KNOWN)}
    assert waits == set()


def test_it_would_be_found():
    """torchmetrics' own mean asks whether a loss is NaN, and copies a plain number."""
    places, metric = [], MeanMetric()
    with Reads(places), Copies(places):
        metric.update(torch.tensor(0.5), 4)
    assert {place.split()[0] for place in places} == {"as_tensor", "aten::_local_scalar_dense"}
