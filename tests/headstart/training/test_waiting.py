"""Training does not make the CPU wait for the GPU in every step: then the GPU would wait for the CPU, too."""

import traceback
from contextlib import ExitStack

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import MeanMetric

from headstart.training.build import build_data, build_task, build_trainer

# operations whose result, or its shape, is a value that the CPU needs
READ = {
    *("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::masked_select"),
    *("aten::_unique", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive"),
    *("aten::unique_dim_consecutive", "aten::repeat_interleave", "aten::bincount", "aten::histc"),
}
# they read only if an index is a mask: the CPU needs the number of its true values
INDEX = {"aten::index", "aten::_unsafe_index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
# methods that bring a tensor to the CPU; none of them is an operation if it lies there
TO_CPU = {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__}
# on plain numbers they copy from memory that is not pinned
COPY = {torch.tensor, torch.as_tensor}
KNOWN = (
    "callbacks/divergence.py",  # once in 20 batches and at the end of an epoch
    "callbacks/dashboard.py",  # keeps the logits: once a validation batch, just after the count that waits, too
    "images/mixing.py",  # draws the method on the CPU
    "v2/_augment.py",  # draws its share on the CPU, and one_hot checks indices on CPUs only
    "utilities/compute.py",  # on a GPU torchmetrics decides there whether values are logits
    "bincount in utilities/data.py",  # counts for a confusion matrix: once a validation batch
)


class Reads(TorchDispatchMode):
    """Records operations whose result the CPU has to read."""

    def __init__(self, places):
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name in READ or (name in INDEX and any(is_mask(index) for index in args[1])):
            self.places.append(f"{name} in {origin()}")
        return func(*args, **(kwargs or {}))


def is_mask(index):
    """Whether an index is a tensor of true and false."""
    return index is not None and index.dtype in (torch.bool, torch.uint8)


class Copies(TorchFunctionMode):
    """Records tensors that are made of plain numbers, and tensors that are brought to the CPU."""

    def __init__(self, places):
        super().__init__()
        self.places = places

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        of_numbers = func in COPY and not isinstance(args[0], torch.Tensor) and kwargs.get("device") is not None
        if of_numbers or func in TO_CPU:
            self.places.append(f"{func.__name__} in {origin()}")
        return func(*args, **kwargs)


def origin():
    """The place that caused an operation and its callers; the innermost one outside torch is the first."""
    frames = [f for f in traceback.extract_stack() if "test_waiting" not in f.filename and "/torch/" not in f.filename]
    return " < ".join(f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno}" for frame in frames[:-6:-1])


class Watch(Callback):
    """Watches from the end of the first step of an epoch to the end of the last, in training or in validation."""

    def __init__(self, split):
        self.places, self.steps = [], 0
        self.modes = ExitStack()
        setattr(self, f"on_{split}_batch_end", self.watch)

    def watch(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self.modes.enter_context(Reads(self.places))
            self.modes.enter_context(Copies(self.places))
        self.steps = batch_idx
        if batch_idx + 1 == (trainer.num_val_batches[0] if trainer.validating else trainer.num_training_batches):
            self.modes.close()


def is_known(place):
    """Whether the innermost frame outside torch is one of the known places."""
    innermost = place.split(" < ")[0]
    return any(known in innermost for known in KNOWN)


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
    with watch.modes:
        trainer.fit(task, data)
    assert watch.steps >= 3
    assert {place for place in watch.places if not is_known(place)} == set()


def test_waits_of_a_metric_would_be_found():
    """torchmetrics' own mean asks whether a loss is NaN, and copies a plain number."""
    places, metric = [], MeanMetric()
    with Reads(places), Copies(places):
        metric.update(torch.tensor(0.5), 4)
    assert {place.split()[0] for place in places} == {"as_tensor", "aten::_local_scalar_dense"}


@pytest.mark.parametrize(
    ("wait", "name"),
    [
        (lambda values: values[values > 0], "aten::index"),
        (lambda values: values.index_put((values > 0,), values.sum()), "aten::index_put"),
        (lambda values: values.unique_consecutive(), "aten::unique_consecutive"),
        (lambda values: values.repeat_interleave(values), "aten::repeat_interleave"),
        (torch.Tensor.tolist, "tolist"),
        (torch.Tensor.numpy, "numpy"),
        (torch.Tensor.cpu, "cpu"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_wait_would_be_found(wait, name):
    places, values = [], torch.arange(3)
    with Reads(places), Copies(places):
        values[values]  # numbers as an index are not read
        wait(values)
    assert [place.split()[0] for place in places] == [name]
