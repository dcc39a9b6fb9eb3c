from headstart.data.leaks import warn_of_leaks
from headstart.data.samples import Samples


def test_a_group_in_two_splits_is_reported(caplog):
    names = [f"{i:04d}" for i in range(6)]
    data = Samples(names, [0, 0, 1, 1, 0, 0], ["x", "y"], str, groups=["g0", "g0", "g1", "g1", "g2", "g2"])
    warn_of_leaks(data, {"train": [0, 1, 2], "val": [3], "test": [4, 5]})
    assert "1 groups have samples in two splits, such as 'g1'" in caplog.text


def test_leaks(caplog):
    data = Samples(["a", "b", "c", "d"], [0, 0, 1, 0], ["x", "y"], str, ["1", "2", "3", "2"])
    warn_of_leaks(data, {"train": [0, 1], "val": [2], "test": [3]})
    assert "1 samples with identical content are in two splits, the first pair is b = d" in caplog.text
    caplog.clear()
    warn_of_leaks(data, {"train": [0, 1, 3], "val": [2], "test": []})
    assert not caplog.records  # twice in one split and one class misleads nobody
    data.targets = [0, 0, 1, 1]
    warn_of_leaks(data, {"train": [0, 1, 3], "val": [2], "test": []})
    assert "in two classes, the first pair is b = d" in caplog.text
