"""Order and augmentation, alone and through Lightning: interrupted anywhere, a run goes on as if it had not been."""

import random
import warnings
from collections import Counter

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from headstart.data.module import DataModule
from headstart.data.samples import Samples
from headstart.data.sampling import EpochLoader, EpochSampler

EPOCHS = 3
TOTAL, BATCH_SIZE = 22, 4  # five whole batches, and one of two samples


def positions(sampler):
    return [position for position, _ in sampler]


def of_epoch(epoch, *args, **options):
    sampler = EpochSampler(*args, **options)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_an_epoch_is_every_sample_once_in_an_order_of_seed_and_epoch():
    assert of_epoch(0, 50, seed=1) == of_epoch(0, 50, seed=1)
    orders = [[p for p, _ in of_epoch(epoch, 50, seed=seed)] for epoch, seed in ((0, 1), (1, 1), (0, 2))]
    for order in orders:
        assert sorted(order) == list(range(50))
        assert order != sorted(order)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_every_place_has_a_seed_of_its_own():
    seeds = [seed for epoch in range(3) for _, seed in of_epoch(epoch, 50, seed=1)]
    assert len(set(seeds)) == 150
    assert not set(seeds) & {seed for _, seed in of_epoch(0, 50, seed=2)}


def test_without_reshuffling_only_the_augmentation_changes():
    first, second = (of_epoch(epoch, 50, seed=1, reshuffle=False) for epoch in (0, 1))
    assert [p for p, _ in first] == [p for p, _ in second] != list(range(50))
    assert not {seed for _, seed in first} & {seed for _, seed in second}


def test_weights_draw_with_replacement():
    weights = [0.0] * 10 + [1.0] * 10 + [3.0] * 10
    first, again, second = (of_epoch(epoch, 30, seed=5, weights=weights) for epoch in (0, 0, 1))
    assert first == again != second
    many = [p for epoch in range(100) for p, _ in of_epoch(epoch, 30, seed=5, weights=weights)]
    assert min(many) == 10
    assert sum(p >= 20 for p in many) / 3000 == pytest.approx(0.75, abs=0.04)  # five standard deviations


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("names", [2, 3, 11])
def test_every_process_gets_batches_with_equally_frequent_classes(names, world_size):
    classes = [0] * 30 + list(range(1, names)) * 2
    options = {"seed": 4, "world_size": world_size, "batch_size": 8, "classes": lambda: classes}
    options["lengths"] = list(range(len(classes)))
    for rank in range(world_size):
        order = [p for p, _ in of_epoch(1, len(classes), rank=rank, **options)]
        assert len(order) == -(-len(classes) // world_size)
        assert order == [p for p, _ in of_epoch(1, len(classes), rank=rank, **options)]
        assert order != [p for p, _ in of_epoch(2, len(classes), rank=rank, **options)]
        for start in range(0, len(order) - 7, 8):
            found = Counter(classes[p] for p in order[start : start + 8])
            assert len(found) == min(names, 4)
            assert max(found.values()) - min(found.values()) <= 1


def test_balanced_batches_can_be_switched_on_and_off():
    asked = {"classes": None}
    sampler = EpochSampler(12, seed=0, batch_size=4, classes=lambda: asked["classes"])
    plain = positions(sampler)
    asked["classes"] = [0] * 10 + [1] * 2
    assert sum(p >= 10 for p in positions(sampler)) == 6
    asked["classes"] = None
    assert positions(sampler) == plain


@pytest.mark.parametrize("weights", [None, [1.0, 2.0] * 11 + [0.5]])
@pytest.mark.parametrize("world_size", [2, 3])
def test_batches_of_all_processes_are_one_batch_of_a_single_process(world_size, weights):
    def batches(batch_size, **options):
        sampler = EpochSampler(23, seed=1, weights=weights, **options)
        sampler.set_epoch(4)
        keys = list(sampler)
        return [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]

    shares = [batches(3, rank=rank, world_size=world_size) for rank in range(world_size)]
    whole = batches(3 * world_size)
    for number, batch in enumerate(whole):
        union = sorted(key for share in shares for key in share[number])
        if number < len(whole) - 1:
            assert union == sorted(batch)
        assert set(union) >= set(batch)
    lengths = {sum(map(len, share)) for share in shares}
    assert lengths == {-(-23 // world_size)}


def test_more_processes_than_samples():
    shares = [positions(EpochSampler(2, seed=0, rank=rank, world_size=5)) for rank in range(5)]
    assert [len(share) for share in shares] == [1] * 5
    assert {p for share in shares for p in share} == {0, 1}


@pytest.mark.parametrize("rank", [0, 1])
def test_start_leaves_out_the_first_samples_once(rank):
    sampler = EpochSampler(23, seed=1, rank=rank, world_size=2)
    whole = list(sampler)
    sampler.start = 5
    assert len(sampler) == 12
    assert list(sampler) == whole[5:]
    assert list(sampler) == whole
    sampler.start = 100
    assert list(sampler) == []


def test_loader_without_a_trainer_begins_at_the_beginning():
    loader = EpochLoader(_Keys(), EpochSampler(10, seed=0), batch_size=4)
    assert len(loader) == 3
    assert [len(batch) for batch in loader] == [4, 4, 2]
    assert len(EpochLoader(_Keys(), EpochSampler(10, seed=0), batch_size=4, drop_last=True)) == 2


class _Keys(torch.utils.data.Dataset):
    def __getitem__(self, key):
        return key[0]


def load(index):
    return torch.tensor([float(index)])


def noisy(value):
    """Draws from every generator a transform may draw from."""
    return torch.cat([value, torch.rand(1), torch.tensor([random.random(), np.random.rand()])])


class Numbers(DataModule):
    """Sample i is [i], and three random numbers."""

    def __init__(self, **options):
        super().__init__(batch_size=BATCH_SIZE, val_fraction=0, test_fraction=0, **options)
        self.setup()
        self.connect(noisy, noisy)

    def dataset(self, split):
        if split == "test":
            return None
        prefix, total = {"train": ("t", TOTAL), "val": ("v", 5)}[split]
        targets = [i % 2 for i in range(total)]
        return Samples([f"{prefix}{i:02d}" for i in range(total)], targets, ["a", "b"], load)


class Recorder(pl.LightningModule):
    """Keeps what it is trained on, and by which of Lightning's counts."""

    def __init__(self, plans_ahead=False):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.plans_ahead, self.seen = plans_ahead, []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch[0].tolist()))
        return self.layer(batch[0]).mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        if self.plans_ahead:  # Lightning then makes the loader, and an iterator, before it restores its progress
            assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Interrupt(pl.Callback):
    """Saves in one hook of one epoch, after so many batches of it, and stops."""

    def __init__(self, hook, epoch, batches, file):
        self.hook, self.epoch, self.batches, self.file = hook, epoch, batches, file
        setattr(self, hook, self._save)

    def _save(self, trainer, *_):
        if (trainer.current_epoch, trainer.fit_loop.batch_idx + 1) == (self.epoch, self.batches):
            if self.hook == "on_train_epoch_start":
                self._take_back_the_start(trainer.fit_loop)
            trainer.save_checkpoint(self.file)
            raise InterruptedError

    def _take_back_the_start(self, loop):
        """Of an epoch that has started Lightning would find the batches of the one before done, and skip it."""
        for progress in (loop.epoch_progress.total, loop.epoch_progress.current):
            progress.ready -= 1
        loop.epoch_loop.batch_progress.reset_on_run()


def fit(callback=None, workers=0, plans_ahead=False, file=None, sampler="shuffle", **options):
    """What a run, or what is left of one, sees until it ends or the callback interrupts it."""
    module = Recorder(plans_ahead)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=EPOCHS, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        callbacks=[callback] if callback else None, **options,
    )  # fmt: skip
    try:
        trainer.fit(module, Numbers(num_workers=workers, sampler=sampler), ckpt_path=file)
    except InterruptedError:
        trainer.fit_loop.teardown()  # while it validates Lightning itself ends but the workers of the validation
    else:
        assert callback is None, "the callback was never in its hook"
    return module.seen


@pytest.fixture(scope="module")
def whole():
    """What a run sees that is not interrupted."""
    return fit()


def test_every_epoch_has_every_sample_in_an_order_of_its_own(whole):
    epochs = [[row[0] for epoch, _, batch in whole if epoch == e for row in batch] for e in range(EPOCHS)]
    assert all(sorted(epoch) == list(range(TOTAL)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_same_batches_whatever_the_number_of_workers_and_what_was_drawn_before(whole):
    torch.manual_seed(99)
    assert fit(workers=2) == whole
    assert fit(plans_ahead=True) == whole


PLACES = {
    "after a batch": ("on_train_batch_end", 1, 2, {}),
    "after the first batch": ("on_train_batch_end", 0, 1, {}),
    "after the last batch": ("on_train_batch_end", 1, 6, {}),
    "after a validation inside the epoch": ("on_validation_end", 1, 3, {"val_check_interval": 0.5}),
    "after the validation of the epoch": ("on_validation_end", 1, 6, {}),
    "at the end of the epoch": ("on_train_epoch_end", 1, 6, {}),
    "at the start of the first epoch": ("on_train_epoch_start", 0, 0, {}),
    "at the start of the second epoch": ("on_train_epoch_start", 1, 6, {}),
    "at the start of the third epoch": ("on_train_epoch_start", 2, 6, {"check_val_every_n_epoch": 2}),
    "at the start of an epoch when counting steps": ("on_train_epoch_start", 1, 6, {"max_steps": EPOCHS * 6}),
    "after a batch when counting steps": ("on_train_batch_end", 1, 2, {"max_steps": EPOCHS * 6}),
    "after a batch of a shortened epoch": ("on_train_batch_end", 1, 2, {"limit_train_batches": 4}),
    "at the end of a shortened epoch": ("on_train_epoch_end", 0, 4, {"limit_train_batches": 4}),
}


@pytest.mark.parametrize(("workers", "plans_ahead"), [(0, False), pytest.param(2, True, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("place", PLACES)
def test_a_resumed_run_sees_what_it_would_have_seen(place, workers, plans_ahead, whole, tmp_path):
    hook, epoch, batches, options = PLACES[place]
    file = tmp_path / "interrupted.ckpt"
    first = fit(Interrupt(hook, epoch, batches, file), workers, plans_ahead, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not resumable")
        rest = fit(None, workers, plans_ahead, file, **options)
    limit = options.get("limit_train_batches", 6)
    assert len(first) == epoch * limit + (hook != "on_train_epoch_start") * batches
    assert first + rest == [step for step in whole if step[1] < limit]


def test_a_balanced_run_sees_what_it_would_have_seen(tmp_path):
    """Twice interrupted, too."""
    whole, file, later = fit(sampler="balanced"), tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    seen = fit(Interrupt("on_train_batch_end", 0, 3, file), sampler="balanced")
    seen += fit(Interrupt("on_train_batch_end", 1, 4, later), file=file, sampler="balanced")
    assert seen + fit(file=later, sampler="balanced") == whole


def test_overfitting_sees_the_same_batches_again_and_again():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*requested to overfit")
        seen = fit(overfit_batches=2)
    epochs = [[row[0] for epoch, _, batch in seen if epoch == e for row in batch] for e in range(EPOCHS)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(epochs[0]) == 8
    assert epochs[0] != sorted(epochs[0])


def test_whoever_looks_at_the_batches_sees_a_whole_epoch():
    """Be it another loader, while Lightning trains, or Lightning's own in between."""
    counts = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            counts.append(sum(len(batch) for batch, _ in trainer.datamodule.train_dataloader()))

        def on_train_epoch_end(self, trainer, *_):
            counts.append(sum(len(batch) for batch, _ in trainer.train_dataloader))

    module = Recorder()
    trainer = pl.Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, callbacks=Look(),
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(module, Numbers(num_workers=0))
    assert counts == [TOTAL] * 14
    assert len(module.seen) == 12


LENGTHS = random.Random(0).choices(range(3, 60), k=1003)


def by_length(world_size=1, epoch=0, batch_size=4, **options):
    """The batches of each process in an epoch of samples of different lengths."""
    found = []
    for rank in range(world_size):
        sampler = EpochSampler(len(LENGTHS), 5, rank=rank, world_size=world_size, lengths=LENGTHS,
                               batch_size=batch_size, **options)  # fmt: skip
        sampler.set_epoch(epoch)
        order = positions(sampler)
        found.append([order[start : start + batch_size] for start in range(0, len(order), batch_size)])
    return found


def test_batches_of_similar_lengths_have_every_sample_once_in_an_order_of_seed_and_epoch():
    (first,), (again,), (second,) = by_length(), by_length(), by_length(epoch=1)
    assert first == again != second
    for batches in (first, second):
        assert sorted(place for batch in batches for place in batch) == list(range(len(LENGTHS)))
        assert [len(batch) for batch in batches] == [4] * 250 + [3], "a smaller batch is the last one"
        padded = sum(len(batch) * max(LENGTHS[i] for i in batch) for batch in batches)
        assert padded < 1.05 * sum(LENGTHS), "little is padded"
        assert max(LENGTHS) in [LENGTHS[i] for i in batches[0]], "memory that is too small shows at once"
        longest = [max(LENGTHS[i] for i in batch) for batch in batches[1:]]
        assert longest != sorted(longest, reverse=True), "the order of the batches is random"
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_batches_of_similar_lengths_of_all_processes_are_those_of_one():
    one, two, last = by_length(batch_size=8)[0], *by_length(world_size=2, batch_size=4)
    together = [sorted(a + b) for a, b in zip(two, last, strict=True)]
    assert together[:-1] == [sorted(batch) for batch in one[:-1]]


def test_a_part_of_an_epoch_of_similar_lengths_is_skipped_as_of_any_other():
    whole = EpochSampler(len(LENGTHS), 5, lengths=LENGTHS, batch_size=4)
    part = EpochSampler(len(LENGTHS), 5, lengths=LENGTHS, batch_size=4)
    part.start = 40
    assert list(part) == list(whole)[40:]


def test_no_sample_is_always_in_the_last_batch_because_it_is_short():
    last = set()
    for epoch in range(12):
        sampler = EpochSampler(9, 5, lengths=[3, *range(10, 18)], batch_size=4)
        sampler.set_epoch(epoch)
        last.add(positions(sampler)[-1])
    assert len(last) > 3
