import pickle
import time

import pytest
import torch

from headstart.data.samples import Samples, pool
from headstart.errors import UsageError, listed
from headstart.inputs.images.files import PictureStack


def samples(split: str, names: list[str], classes: list[str], digests: bool = False) -> Samples:
    """One sample a class name in `names`, which loads as `split/index`."""
    targets = [classes.index(name) for name in names]
    keys = [f"{split}/{i}" for i in range(len(names))]
    return Samples(keys, targets, classes, keys.__getitem__, keys if digests else None)


def class_names(joined: Samples, indices: list[int]) -> list[str]:
    return [joined.classes[joined.targets[i]] for i in indices]


def test_classes_are_matched_by_name_whatever_their_order():
    train = samples("train", ["ant", "bee", "cow"], ["ant", "bee", "cow"])
    val = samples("val", ["cow", "ant", "cow"], ["cow", "ant"])  # another order, and one missing
    joined, origin = pool({"train": train, "val": val})
    assert joined.classes == ["ant", "bee", "cow"]
    assert origin == {"train": [0, 1, 2], "val": [3, 4, 5]}
    assert class_names(joined, origin["val"]) == ["cow", "ant", "cow"]
    assert [joined.targets[i] for i in origin["val"]] == [2, 0, 2]


def test_every_index_loads_from_its_own_part():
    empty = samples("val", [], ["a", "b"])
    parts = {"train": samples("train", ["a", "b"], ["a", "b"]), "val": empty, "test": samples("test", ["b"], ["b"])}
    joined, _ = pool(parts)
    assert [joined.load(i) for i in range(len(joined))] == list(joined.names) == ["train/0", "train/1", "test/0"]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["bee", "ant", "cow"], ["bee", "ant", "cow"]),  # another order
        (["cow"], ["cow"]),  # fewer
        (["cow", "bee"], ["bee", "cow", "dodo"]),  # one more, but without a sample
    ],
)
def test_known_classes_decide(names, classes):
    known = ["cow", "ant", "bee"]
    joined, origin = pool({"train": samples("train", names, classes)}, known)
    assert joined.classes == known
    assert class_names(joined, origin["train"]) == names


def test_known_classes_need_no_train_split():
    joined, origin = pool({"test": samples("test", ["b"], ["b"])}, ["a", "b"])
    assert origin == {"test": [0]}
    assert joined.targets == [1]


def test_class_the_model_does_not_know():
    with pytest.raises(UsageError, match=r"train has the class 'dgo', which the model .* did you mean 'dog'\?"):
        pool({"train": samples("train", ["dgo", "cat"], ["cat", "dgo"])}, ["cat", "dog"])


def test_class_of_val_that_train_lacks():
    parts = {
        "train": samples("train", ["cat", "dog"], ["cat", "dog"]),
        "val": samples("val", ["cat", "dogg"], ["cat", "dogg"]),
    }
    with pytest.raises(UsageError, match=r"val has the class 'dogg'.* did you mean 'dog'\?.*'cat', 'dog'.*add it to"):
        pool(parts)


def test_class_without_training_sample():
    with pytest.raises(UsageError, match="no readable training sample of class 'b'"):
        pool({"train": samples("train", ["a"], ["a", "b"])})


def test_single_class():
    with pytest.raises(UsageError, match="only one class, 'a'"):
        pool({"train": samples("train", ["a", "a"], ["a"])})


def test_without_train():
    with pytest.raises(UsageError, match="no train split, only val"):
        pool({"val": samples("val", ["a"], ["a"])})
    with pytest.raises(UsageError, match="empty"):
        pool({})


def test_a_name_stands_for_one_sample():
    parts = {split: samples("x", ["a", "b"], ["a", "b"]) for split in ("train", "test")}
    with pytest.raises(ValueError, match="same name"):
        pool(parts)


def test_digests_are_kept_only_where_all_have_them():
    train, test = (samples(split, ["a", "b"], ["a", "b"], digests=True) for split in ("train", "test"))
    assert pool({"train": train, "test": test})[0].digests == ["train/0", "train/1", "test/0", "test/1"]
    test.digests = None
    assert pool({"train": train, "test": test})[0].digests is None


def test_labels_are_moved_to_the_columns_of_their_names():
    train = Samples(["0", "1"], [[1, 0, 1], [0, 1, 0]], ["a", "b", "c"], str)
    val = Samples(["2", "3"], [[1, 1], [0, 0]], ["c", "a"], str)
    joined, origin = pool({"train": train, "val": val})
    assert joined.multi_label
    assert [joined.targets[i] for i in origin["val"]] == [[1, 0, 1], [0, 0, 0]]
    assert joined.classes_of(2) == [0, 2]


@pytest.mark.parametrize(
    "targets",
    [
        [0, 3], [0, -1], [0, 1.0], [0.0, 1.0], [0, [1, 0, 0]],
        [[1, 0, 0], [1, 0]], [[1, 0, 0], [2, 0, 0]], [[1, 0, 0], 1], torch.tensor([0, 1]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("known", [None, ["c", "b", "a"]])
def test_a_target_that_is_not_allowed(targets, known):
    samples = Samples(["x", "y"], targets, ["a", "b", "c"], str)
    with pytest.raises(
        ValueError, match=r"the target of '[xy]' in train is .*: a data set must give a class index from 0"
    ):
        pool({"train": samples}, known)


def test_many_classes_and_samples_take_no_quadratic_time():
    n = 60_000
    classes = [f"class {i}" for i in range(n)]
    train = Samples([f"a{i}" for i in range(n)], list(range(n)), classes, str)
    val = Samples([f"b{i}" for i in range(n)], list(range(n)), classes[::-1], str)
    start = time.process_time()
    joined, origin = pool({"train": train, "val": val})
    assert time.process_time() - start < 5  # 0.3 s; with `classes.index` half a minute
    assert [joined.targets[i] for i in origin["val"]] == list(range(n))[::-1]


def test_picture_stack_gives_rgb():
    grey, colour = torch.randint(255, (2, 4, 5)).byte(), torch.randint(255, (2, 3, 4, 5)).byte()
    assert torch.equal(PictureStack(colour)(1), colour[1])
    assert PictureStack(grey)(1).shape == (3, 4, 5)
    assert all(torch.equal(channel, grey[1]) for channel in PictureStack(grey)(1))
    assert torch.equal(pickle.loads(pickle.dumps(PictureStack(grey)))(0), PictureStack(grey)(0))


def test_long_lists_are_cut_short():
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed([str(i) for i in range(12)]) == ", ".join(f"'{i}'" for i in range(10)) + " and 2 more"
