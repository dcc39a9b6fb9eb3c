"""Checkpoints survive a kill, their damage is noticed, they are plain data, and a run goes on from the newest whole."""

import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from headstart.cli.conf_files import CONF
from headstart.errors import UsageError
from headstart.evaluation.evaluate import evaluate
from headstart.files import UnreadableError, read_torch_file
from headstart.tasks import checkpoint
from headstart.tasks.checkpoint_io import SafeCheckpointIO
from headstart.training.run import train

SRC = Path(__file__).parents[2] / "src"
POSIX = pytest.mark.skipif(os.name == "nt", reason="neither SIGKILL nor limits there")


def write(path: Path, step: int = 1, **more) -> Path:
    """A small checkpoint as Lightning and Headstart write it."""
    content = {"epoch": step // 10, "global_step": step, "optimizer_states": [], "hyper_parameters": {"classes": ["a"]}}
    SafeCheckpointIO().save_checkpoint(content | {"state_dict": {"w": torch.full((1000,), step)}} | more, path)
    return path


def damage(path: Path, offset: int | None = None, mask: int = 0xFF) -> Path:
    """Flips bits of one byte, in the middle unless told; the second time they are as they were."""
    offset = path.stat().st_size // 2 if offset is None else offset
    with path.open("r+b") as stream:
        stream.seek(offset)
        (byte,) = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte ^ mask]))
    return path


def equal(one, other) -> bool:
    """Whether nested plain data are the same to the bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return same and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def record_bytes(path: Path) -> range:
    """Where the largest record of the archive lies."""
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        record = max(archive.infolist(), key=lambda record: record.file_size)
    lengths = content[record.header_offset + 26 : record.header_offset + 30]
    start = record.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return range(start, start + record.file_size)


def with_a_flip(path: Path, offset: int, mask: int, original) -> str:
    """What becomes of a file with a changed byte: `refused`, or `equal` to the original."""
    damage(path, offset, mask)
    try:
        content = read_torch_file(path)
    except UnreadableError:
        return "refused"
    finally:
        damage(path, offset, mask)
    assert equal(content, original), offset
    return "equal"


def test_a_changed_byte_anywhere_in_a_runs_checkpoint_is_refused_or_harmless(quick, tmp_path):
    train(quick("trainer.max_epochs=1", "test=false"))
    file = tmp_path / "run/checkpoints/last.ckpt"
    original, draw = read_torch_file(file), random.Random(0)
    for offset in draw.sample(range(file.stat().st_size), 200):
        with_a_flip(file, offset, 1 << draw.randrange(8), original)
    for offset in draw.sample(record_bytes(file), 50):
        assert with_a_flip(file, offset, 1 << draw.randrange(8), original) == "refused"
    whole = file.read_bytes()
    for length in draw.sample(range(len(whole)), 20):
        file.write_bytes(whole[:length])
        with pytest.raises(UnreadableError):
            read_torch_file(file)


def test_a_bit_of_what_is_no_tensor_is_refused_or_harmless(tmp_path):
    """Headers and the directory of records, which torch heeds although no checksum covers them."""
    file = tmp_path / "a.ckpt"
    torch.save({"a": torch.arange(100.0), "b": [1, "x"]}, file)
    original, whole, tensor, draw = read_torch_file(file), file.read_bytes(), record_bytes(file), random.Random(0)
    offsets = [o for o in range(len(whole)) if o not in tensor and whole[o] != ord("Z")]  # Z fills gaps
    seen = {with_a_flip(file, offset, 1 << draw.randrange(8), original) for offset in offsets}
    assert seen == {"refused", "equal"}


def test_a_record_turned_into_a_folder_is_refused(tmp_path):
    """One bit of the directory, and torch gives a tensor of whatever the memory held."""
    file = write(tmp_path / "a.ckpt")
    attributes = file.read_bytes().rindex(b"archive/data/0") - 8
    with pytest.raises(UnreadableError, match=r"damaged: .*data/0"):
        read_torch_file(damage(file, attributes, 0x10))


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adam", "scheduler=plateau"],
        ["optimizer=adamw", "scheduler=warmup_cosine"],
        ["optimizer=sgd", "scheduler=onecycle"],
        ["optimizer=sgd", "scheduler=step", "data.class_weights=balanced"],
    ],
    ids=" ".join,
)
def test_what_a_run_saves_is_plain_data(overrides, quick, tmp_path):
    cfg = quick("trainer.max_epochs=1", "test=false", *overrides)
    cfg.trainer.enable_progress_bar = True  # a callback too
    train(cfg)
    for name in ("best", "last"):
        content = torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)
        assert content["optimizer_states"][0]["param_groups"]
        assert content["callbacks"]
        assert equal(content, checkpoint.read(tmp_path / f"run/checkpoints/{name}.ckpt"))


class Hostile:
    """What a file can hold to run code in whoever reads it."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def test_a_hostile_file_is_refused_everywhere_and_not_executed(quick, tmp_path):
    train(quick("trainer.max_epochs=1", "test=false"))
    best, owned = tmp_path / "run/checkpoints/best.ckpt", tmp_path / "owned"
    torch.save(checkpoint.read(best) | {"callbacks": Hostile(owned)}, best)
    with (
        initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises(UsageError, match=r"holds more than .*\(io\.open\)(.|\n)*There are also: last; .*checkpoint="),
    ):
        evaluate(compose("evaluate", [f"run={tmp_path / 'run'}"]), best)
    for weights in (best, tmp_path / "run", best.rename(tmp_path / "best.pth")):
        (tmp_path / "best.pth").exists() and best.write_bytes((tmp_path / "best.pth").read_bytes())
        with pytest.raises(Exception, match=r"cannot read .*holds more than"):
            train(quick(f"model.weights={weights}", f"paths.run={tmp_path / 'next'}"))
    for weights_only in (False, None):
        with pytest.raises(UsageError, match="no checkpoint that can be read safely: it holds more than"):
            SafeCheckpointIO().load_checkpoint(best, weights_only=weights_only)
    assert not owned.exists()


def test_more_than_plain_data_is_not_saved_and_what_was_there_stays(tmp_path):
    path = write(tmp_path / "last.ckpt", 7)
    with pytest.raises(UsageError, match=r"last\.ckpt would hold numpy.*Keep only tensors, numbers"):
        write(path, 8, callbacks={"mine": np.float32(0.5)})
    assert checkpoint.read(path)["global_step"] == 7
    assert list(tmp_path.iterdir()) == [path]


@POSIX
def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path):
    import resource

    path = write(tmp_path / "last.ckpt", 7)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UsageError) as told:
            write(path, 8, more=torch.zeros(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in str(told.value)
    assert "the earlier file is kept" in str(told.value)
    assert checkpoint.read(path)["global_step"] == 7
    assert list(tmp_path.iterdir()) == [path]


def test_urls_are_refused_and_removing_twice_is_no_error(tmp_path):
    with pytest.raises(UsageError, match=r"s3://bucket/a\.ckpt: checkpoints go into a folder"):
        write("s3://bucket/a.ckpt")
    plugin = SafeCheckpointIO()
    plugin.save_checkpoint({}, tmp_path / "a.ckpt")
    for _ in range(2):
        plugin.remove_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "a.ckpt").exists()


def test_only_checkpoints_of_the_run_are_removed_whatever_a_saved_state_names(tmp_path):
    other = write(tmp_path / "other/best.ckpt")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/link").symlink_to(other.parent)
    plugin = SafeCheckpointIO()
    plugin.save_checkpoint({}, tmp_path / "run/last.ckpt")
    for name in ("run/../other/best.ckpt", "other/best.ckpt", "run/link/best.ckpt"):
        plugin.remove_checkpoint(tmp_path / name)
        assert other.exists(), name


@pytest.fixture
def run(tmp_path) -> Path:
    """A run directory whose folder of checkpoints is empty."""
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    return tmp_path / "run"


def test_a_run_goes_on_from_last_although_others_are_newer_or_damaged(run, caplog):
    damage(write(run / "checkpoints/best.ckpt", 50))
    write(run / "checkpoints/epoch=5.ckpt", 60)
    last = write(run / "checkpoints/last.ckpt", 40)
    assert checkpoint.newest_valid(run) == last
    assert not caplog.text


@pytest.mark.parametrize("cut", [0, 1, 500, None])
def test_a_damaged_last_is_told_and_the_newest_whole_one_used(cut, run, caplog):
    last = write(run / "checkpoints/last.ckpt", 90)
    last.write_bytes(last.read_bytes()[:cut]) if cut is not None else damage(last)
    write(run / "checkpoints/a.ckpt", 30)
    newest = write(run / "checkpoints/b.ckpt", 50)
    write(run / "checkpoints/best.ckpt", 40)
    damage(write(run / "checkpoints/c.ckpt", 70))
    (run / "checkpoints/last.ckpt.123.tmp").touch()
    assert checkpoint.newest_valid(run) == newest
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for part in (f"{last}: it is", "c.ckpt: it is damaged", f"using instead {newest}, saved after step 50 (epoch 5)"):
        assert part in caplog.text


def test_the_epoch_decides_between_equal_steps(run):
    write(run / "checkpoints/a.ckpt", 50, epoch=6)
    write(run / "checkpoints/b.ckpt", 50, epoch=5)
    assert checkpoint.newest_valid(run).name == "a.ckpt"


def test_without_a_last_the_newest_is_used_and_nothing_told(run, caplog):
    assert checkpoint.newest_valid(run) is None
    assert checkpoint.newest_valid(run / "nowhere") is None
    write(run / "checkpoints/a.ckpt", 50)
    write(run / "checkpoints/b.ckpt", 9)
    assert checkpoint.newest_valid(run).name == "a.ckpt"
    assert not caplog.text


def test_when_none_is_whole_each_ones_reason_is_told(run):
    damage(write(run / "checkpoints/last.ckpt"))
    torch.save({"state_dict": {}, "x": Hostile(run / "owned")}, run / "checkpoints/best.ckpt")
    torch.save([1], run / "checkpoints/list.ckpt")
    weights = {"state_dict": {}, "hyper_parameters": {"classes": ["a"]}}
    torch.save(weights, run / "checkpoints/weights.ckpt")
    with pytest.raises(UsageError) as told:
        checkpoint.newest_valid(run)
    for part in (
        "none of its checkpoints", "last.ckpt: it is damaged", "best.ckpt: it holds more than",
        "list.ckpt: it is no checkpoint of a Headstart run", "weights.ckpt: it holds only weights", "intact copy",
    ):  # fmt: skip
        assert part in str(told.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("callbacks", 5),
        ("loops", 5),
        ("optimizer_states", {}),
        ("global_step", "x"),
        ("epoch", None),
        ("state_dict", []),
    ],
)
def test_an_entry_of_another_kind_is_named(name, value, run):
    content = {"hyper_parameters": {"classes": ["a"]}, name: value}
    torch.save(content, run / "checkpoints/last.ckpt")
    with pytest.raises(UsageError, match=rf"last\.ckpt: its {name} is a {type(value).__name__}, not a "):
        checkpoint.newest_valid(run)


def test_a_damaged_checkpoint_names_the_others(run):
    write(run / "checkpoints/last.ckpt")
    with pytest.raises(UsageError, match=r"best\.ckpt is no .*: it is damaged.* There are also: last; .*checkpoint="):
        checkpoint.read(damage(write(run / "checkpoints/best.ckpt")))


# imports once; each line it is sent makes a process that saves for ever
SAVE_FOR_EVER = """
import os, signal, sys
import torch
from headstart.tasks.checkpoint_io import SafeCheckpointIO

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the killed vanish instead of looking alive
for _ in sys.stdin:
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    torch.set_num_threads(1)
    tensors = {f"w{i}": torch.zeros(2_500_000) for i in range(5)}  # 50 MB
    for number in range(10**9):
        for tensor in tensors.values():
            tensor.fill_(number)
        SafeCheckpointIO().save_checkpoint({"by": os.getpid(), "number": number, "state_dict": tensors}, sys.argv[1])
"""


def start_saving(maker: subprocess.Popen) -> int:
    """The id of a process that saves until it is killed."""
    maker.stdin.write("\n")
    maker.stdin.flush()
    return int(maker.stdout.readline())


@pytest.mark.slow
@POSIX
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint_and_little_litter(tmp_path):
    path, savers, draw = tmp_path / "last.ckpt", set(), random.Random(0)
    with subprocess.Popen(
        [sys.executable, "-c", SAVE_FOR_EVER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(SRC)},
    ) as maker:  # fmt: skip
        first, started = start_saving(maker), time.monotonic()
        while not path.exists():
            time.sleep(0.01)
            assert time.monotonic() - started < 300, "nothing was saved"
        one_save = time.monotonic() - started
        os.kill(first, signal.SIGKILL)
        for _ in range(15):
            saving = start_saving(maker)
            time.sleep(draw.uniform(0, 3 * one_save))
            os.kill(saving, signal.SIGKILL)
            content = SafeCheckpointIO().load_checkpoint(path)
            assert all((tensor == content["number"]).all() for tensor in content["state_dict"].values())
            assert len(list(tmp_path.iterdir())) <= 3  # the file, what this one left, and what the one before left
            savers.add(content["by"])
        maker.stdin.close()
    assert len(savers) > 1
    SafeCheckpointIO().save_checkpoint(content, path)
    assert list(tmp_path.iterdir()) == [path]
