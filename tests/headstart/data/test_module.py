import inspect
import pickle
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from headstart.data.module import DataModule
from headstart.data.samples import Samples
from headstart.errors import UsageError
from headstart.inputs.base import Preprocess
from headstart.inputs.transforms import SplitTransform, as_it_is

CONF = Path(__file__).parents[3] / "conf" / "data"


def load(index: int) -> torch.Tensor:
    return torch.tensor([float(index)])


def trained(value: torch.Tensor) -> torch.Tensor:
    return value + 1000


def evaluated(value: torch.Tensor) -> torch.Tensor:
    return value


def noisy(value: torch.Tensor) -> torch.Tensor:
    return value + torch.rand(1)


class Numbers(DataModule):
    """So many samples of each class, all as `train`; sample i loads as [i]."""

    def __init__(self, sizes=(40, 40), multi_label=False, **options):
        super().__init__(**options)
        self.sizes, self.multi_label, self.asked = sizes, multi_label, []

    def dataset(self, split):
        self.asked.append(split)
        if split != "train":
            return None
        targets = [c for c, size in enumerate(self.sizes) for _ in range(size)]
        if self.multi_label:
            targets = [[int(target == 0), 1] for target in targets]
        names = [f"{i:03d}" for i in range(len(targets))]
        return Samples(names, targets, [f"c{c}" for c in range(len(self.sizes))], load)


def ready(**options) -> Numbers:
    data = Numbers(**({"num_workers": 0} | options))
    data.setup()
    data.connect(trained, evaluated)
    return data


def epoch(loader, number=0) -> list[float]:
    """The inputs of one epoch of a training loader, as Lightning would choose it."""
    loader.batch_sampler.sampler.set_epoch(number)
    return torch.cat([x for x, _ in loader]).flatten().tolist()


class Trainer(SimpleNamespace):
    """What the data module asks a trainer with several processes."""

    overfit_batches, train_dataloader = 0, None

    def __init__(self, rank: int, world_size: int):
        super().__init__(global_rank=rank, world_size=world_size, num_devices=world_size)


def in_processes(world_size: int, **options) -> list[Numbers]:
    """The data module as each of several processes has it."""
    shares = [ready(**options) for _ in range(world_size)]
    for rank, data in enumerate(shares):
        data.trainer = Trainer(rank, world_size)
    return shares


def test_train_is_shuffled_and_augmented():
    data = ready()
    loader = data.train_dataloader()
    first, second = epoch(loader, 0), epoch(loader, 1)
    assert sorted(first) == sorted(second) == [i + 1000 for i in data.splits["train"]]
    assert first != second
    assert first != sorted(first)


def test_order_is_a_matter_of_the_seed_and_the_epoch():
    first, other = epoch(ready().train_dataloader(), 3), epoch(ready(seed=1).train_dataloader(), 3)
    assert epoch(ready().train_dataloader(), 3) == first != other


def test_augmentation_is_the_same_with_any_number_of_workers():
    draws = [ready(num_workers=workers) for workers in (0, 1, 2)]
    for data in draws:
        data.connect(noisy, evaluated)
    alone, *loaded = [[epoch(loader, 0), epoch(loader, 1)] for loader in (data.train_dataloader() for data in draws)]
    assert loaded == [alone, alone]
    assert not set(alone[0]) & set(alone[1])


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_is_cut_from_train_is_in_order_and_plain(split):
    data = ready()
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    inputs = torch.cat([x for x, _ in loader]).flatten().tolist()
    assert inputs == data.splits[split]
    assert inputs == sorted(inputs)
    assert len(inputs) == 12


def test_load_with_is_called_with_only_the_deterministic_part():
    asked = []

    def load_with(samples, deterministic):
        asked.append(deterministic)
        return lambda index: deterministic(samples.load(index)) + 0.5

    data = ready()
    data.load_with = load_with
    data.connect(SplitTransform(trained, noisy), evaluated)
    drawn = sorted(epoch(data.train_dataloader()))
    assert all(0.5 <= value - 1000 - index < 1.5 for value, index in zip(drawn, data.splits["train"], strict=True))
    next(iter(data.val_dataloader())), next(iter(data.inputs("train", [0])))
    assert asked == [trained, evaluated, evaluated]
    data.connect(noisy, evaluated)
    data.train_dataloader()
    assert asked[3] is as_it_is


@pytest.mark.parametrize("early", [False, True])
def test_samples_are_decoded_in_the_detail_that_the_model_needs(early):
    class Detailed(Preprocess):
        def __call__(self, value):
            return value

        def adapt_loader(self, load):
            return load.decoded(7)

        def example(self, number):
            raise NotImplementedError

        def describe(self, raw=False):
            raise NotImplementedError

    class Load:
        def __init__(self, side=None):
            self.side = side

        def decoded(self, side):
            return Load(side)

        def __call__(self, index):
            return torch.tensor([0.0 if self.side is None else self.side])

    class Pictures(Numbers):
        def dataset(self, split):
            found = super().dataset(split)
            return found and Samples(found.names, found.targets, found.classes, Load())

    data = Pictures(num_workers=0)
    for step in (lambda: data.connect(trained, Detailed()), data.setup)[:: 1 if early else -1]:
        step()
    assert set(epoch(data.train_dataloader())) == {1007}
    assert data.val_dataloader().dataset[0][0] == next(iter(data.inputs("val", [0])))[0] == 7
    data.connect(trained, evaluated)
    assert data.val_dataloader().dataset[0][0] == 0


def test_targets_belong_to_their_inputs():
    for inputs, targets in ready(sizes=(30, 20, 10)).val_dataloader():
        assert inputs.shape == (len(targets), 1)
        assert targets.dtype == torch.int64
        assert targets.tolist() == [0 if i < 30 else 1 if i < 50 else 2 for i in inputs.flatten().tolist()]


def test_labels_come_as_one_row_a_sample():
    _, targets = next(iter(ready(multi_label=True, batch_size=8).train_dataloader()))
    assert targets.shape == (8, 2)
    assert targets[:, 1].tolist() == [1] * 8


@pytest.mark.parametrize(
    ("total", "batch_size", "batches"),
    [(33, 32, [32]), (34, 32, [32, 2]), (64, 32, [32, 32]), (20, 32, [20]), (3, 1, [1, 1, 1]), (5, 2, [2, 2])],
)
def test_only_a_last_batch_of_one_is_dropped(total, batch_size, batches):
    data = ready(sizes=(total - 1, 1), val_fraction=0, test_fraction=0, batch_size=batch_size)
    assert [len(x) for x, _ in data.train_dataloader()] == batches


def test_evaluation_drops_nothing():
    data = ready(sizes=(33, 33), val_fraction=0.5, test_fraction=0, batch_size=32)
    assert [len(x) for x, _ in data.val_dataloader()] == [32, 1]


def test_batch_of_one_is_dropped_on_each_of_several_processes():
    options = {"sizes": (33, 33), "val_fraction": 0, "test_fraction": 0, "batch_size": 32}
    assert [len(x) for x, _ in ready(**options).train_dataloader()] == [32, 32, 2]
    for data in in_processes(2, **options):
        assert [len(x) for x, _ in data.train_dataloader()] == [32]


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_processes_learn_together_what_one_would(sampler):
    options = {"sizes": (40, 8), "val_fraction": 0, "test_fraction": 0, "sampler": sampler}
    whole = ready(batch_size=8, **options).train_dataloader()
    shares = [data.train_dataloader() for data in in_processes(2, batch_size=4, **options)]
    for number in (0, 1):
        for loader in (whole, *shares):
            loader.batch_sampler.sampler.set_epoch(number)
        batches = list(zip(whole, *shares, strict=True))
        assert len(batches) == 6
        for (inputs, _), (first, _), (second, _) in batches:
            assert sorted(torch.cat([first, second]).tolist()) == sorted(inputs.tolist())
            assert first.tolist() != second.tolist()


@pytest.mark.parametrize("split", ["val", "test", "train"])
@pytest.mark.parametrize("world_size", [2, 5])
def test_processes_evaluate_every_sample_in_one_of_them(split, world_size):
    shares = [torch.cat([x for x, _ in data.loader(split)]) for data in in_processes(world_size)]
    whole = ready()
    assert sorted(torch.cat(shares).flatten().tolist()) == whole.splits[split]
    assert all(len(share) >= len(whole.splits[split]) // world_size for share in shares)


def test_no_process_goes_without_a_sample():
    shares = in_processes(4, sizes=(20, 20), val_fraction=0.05)
    assert [sum(len(x) for x, _ in data.val_dataloader()) for data in shares] == [1] * 4
    seen = {i for data in shares for x, _ in data.val_dataloader() for i in x.flatten().tolist()}
    assert seen == set(shares[0].splits["val"])
    assert len(seen) == 2


@pytest.mark.parametrize(("cores", "processes", "workers"), [(2, 1, 0), (4, 1, 3), (32, 1, 8), (8, 2, 3), (8, 4, 0)])
def test_processes_share_the_cores(cores, processes, workers, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    data = in_processes(processes, num_workers=None)[0]
    assert data.val_dataloader().num_workers == data.train_dataloader().num_workers == workers
    if processes == 1:
        assert ready(num_workers=None).val_dataloader().num_workers == workers
    assert in_processes(processes, num_workers=1)[0].val_dataloader().num_workers == 1


def test_workers():
    data = ready(num_workers=2, batch_size=16)
    loader = data.val_dataloader()
    assert loader.persistent_workers
    assert torch.cat([x for x, _ in loader]).flatten().tolist() == data.splits["val"]
    train = data.train_dataloader()
    assert pickle.loads(pickle.dumps(train.dataset))[0, 7][0] == train.dataset[0, 7][0]  # as spawned workers get it


@pytest.mark.parametrize("split", ["val", "test"])
def test_split_that_does_not_exist(split):
    data = ready(**{f"{split}_fraction": 0})
    assert data.num_samples[split] == 0
    with pytest.raises(UsageError, match=f"the {split} split is empty: give .* data.{split}_fraction > 0"):
        data.loader(split)


def test_balanced_sampler_draws_every_class_as_often():
    data = ready(sizes=(900, 90, 10), val_fraction=0, test_fraction=0, sampler="balanced", batch_size=100)
    drawn = Counter(t for _, targets in data.train_dataloader() for t in targets.tolist())
    assert sum(drawn.values()) == 1000
    for count in drawn.values():
        assert count == pytest.approx(333, abs=75)  # five standard deviations
    loader = data.train_dataloader()
    assert epoch(loader, 0) != epoch(loader, 1)
    assert epoch(data.train_dataloader(), 1) == epoch(loader, 1)  # seeded


def test_balanced_sampler_leaves_validation_alone():
    data = ready(sizes=(60, 20), sampler="balanced")
    assert torch.cat([x for x, _ in data.val_dataloader()]).flatten().tolist() == data.splits["val"]


def test_class_weights():
    sizes = {"sizes": (60, 30, 10), "val_fraction": 0, "test_fraction": 0}
    assert ready(**sizes).class_weights() is None
    balanced = ready(**sizes, class_weights="balanced").class_weights()
    assert balanced == pytest.approx([100 / (3 * n) for n in (60, 30, 10)])
    roots = [n**0.5 for n in (60, 30, 10)]
    assert ready(**sizes, class_weights="sqrt").class_weights() == pytest.approx([100 / sum(roots) / r for r in roots])


def test_class_weights_of_labels_make_samples_with_and_without_them_count_alike():
    data = ready(sizes=(10, 30), multi_label=True, class_weights="balanced", val_fraction=0, test_fraction=0)
    assert data.class_weights() == pytest.approx([3, 1 / 40])
    data = ready(sizes=(10, 30), multi_label=True, class_weights="sqrt", val_fraction=0, test_fraction=0)
    assert data.class_weights() == pytest.approx([3**0.5, 40**-0.5])


def test_class_weights_count_the_training_samples_alone():
    data = ready(sizes=(60, 20), shots_per_class=5, class_weights="balanced")
    assert data.class_weights() == pytest.approx([1, 1])


def test_class_weights_of_a_class_without_sample():
    with pytest.raises(UsageError, match="no training sample of class 'new'"):
        ready(classes=["c0", "new", "c1"], class_weights="balanced").class_weights()


def test_counts():
    data = ready(sizes=(60, 40), val_fraction=0.2, test_fraction=0.1)
    assert data.num_samples == {"train": 70, "val": 20, "test": 10}
    assert data.class_counts() == [42, 28]
    assert data.class_counts("val") == [12, 8]
    assert data.classes == ["c0", "c1"]


def test_known_classes_decide_the_order():
    data = ready(sizes=(30, 10), classes=["c1", "zebra", "c0"], val_fraction=0, test_fraction=0)
    assert data.classes == ["c1", "zebra", "c0"]
    assert data.class_counts() == [10, 0, 30]
    for inputs, targets in data.train_dataloader():
        assert targets.tolist() == [2 if i < 1030 else 0 for i in inputs.flatten().tolist()]


def test_absent_class_is_told(caplog):
    ready(sizes=(30, 2))
    assert "no sample of class 'c1' in val" in caplog.text
    assert "in test" not in caplog.text


def test_setup_finds_the_samples_once():
    data = ready()
    assert data.asked == ["train", "val", "test"]
    data.setup("test")
    assert data.asked == ["train", "val", "test"]


def test_splits_are_written_and_read_whatever_the_options_say_later(tmp_path):
    file = str(tmp_path / "run" / "split.csv")
    first = ready(split_file=file)
    later = ready(split_file=file, seed=1, val_fraction=0.3, test_fraction=0, shots_per_class=2)
    assert later.splits == first.splits
    assert ready(seed=1).splits != first.splits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size=0"),
        ({"num_workers": -1}, "data.num_workers=-1"),
        ({"class_weights": "inverse"}, "data.class_weights=inverse: choose one of none, balanced, sqrt"),
        ({"sampler": "weighted"}, "data.sampler=weighted: choose one of shuffle, balanced"),
        ({"sampler": "balanced", "class_weights": "sqrt"}, "both balance the classes: give one"),
        ({"sampler": "balanced", "multi_label": True}, "one class per sample"),
        ({"shots_per_class": 3, "train_fraction": 0.5}, "give one"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(UsageError, match=message):
        ready(**options)


def test_config_has_the_same_keys():
    keys = yaml.safe_load((CONF / "base.yaml").read_text(encoding="utf-8"))
    parameters = inspect.signature(DataModule.__init__).parameters
    assert set(keys) == set(parameters) - {"self", "classes"}
    for key in set(keys) - {"seed", "split_file"}:
        assert keys[key] == parameters[key].default, key
