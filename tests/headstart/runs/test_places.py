"""A run that somebody sent writes into its own folder, and into the caches of this machine."""

import os

import pytest
from omegaconf import OmegaConf

from headstart.errors import UsageError
from headstart.runs.places import cache_of_this_machine, check_links, check_places, use_cache_of_this_machine
from headstart.runs.resume import run_directory


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("callbacks.last_checkpoint.dirpath", "/elsewhere"),
        ("callbacks.last_checkpoint.dirpath", "${paths.run}/../other"),
        ("callbacks.best_checkpoint.filename", "../best"),
        ("callbacks.interruption.file", "${paths.cache}/last.ckpt"),
        ("logger.csv.save_dir", "~"),
        ("data.split_file", "/elsewhere/split.csv"),
        ("trainer.default_root_dir", "/elsewhere"),
        ("cache.activations.root", "/elsewhere"),
        ("+data.cache", "/elsewhere"),
        ("logger.csv.name", "../../elsewhere"),
        ("logger.csv.version", "/elsewhere"),
        ("logger.csv.name", "a/../../.."),
        ("+logger.tensorboard.sub_dir", ".."),
    ],
)
def test_a_resumed_run_writes_into_its_own_folder(key, value, composed, tmp_path, monkeypatch):
    config, typed = composed(), OmegaConf.create()
    check_places(config, tmp_path / "run", typed)
    OmegaConf.update(config, key.removeprefix("+"), value, force_add=key.startswith("+"))
    with pytest.raises(UsageError, match=r"would write to .* which is outside the run"):
        check_places(config, tmp_path / "run", typed)
    check_places(config, tmp_path / "run", config)  # as when torchrun repeats the command line of the run
    monkeypatch.setenv("HEADSTART_TRUST", "places")
    check_places(config, tmp_path / "run", typed)


def test_a_resumed_run_sends_no_files(composed, tmp_path, monkeypatch):
    config = composed()
    logger = {"_target_": "pytorch_lightning.loggers.WandbLogger", "prefix": "a/b", "name": "exp/1"}
    OmegaConf.update(config, "logger.w", logger, force_add=True)
    check_places(config, tmp_path / "run", OmegaConf.create())
    OmegaConf.update(config, "logger.w.settings", {"base_url": "https://elsewhere"}, force_add=True)
    with pytest.raises(UsageError, match=r"a logger with settings \(logger\.w\)"):
        check_places(config, tmp_path / "run", OmegaConf.create())
    check_places(config, tmp_path / "run", config)
    monkeypatch.setenv("HEADSTART_TRUST", "places")
    check_places(config, tmp_path / "run", OmegaConf.create())


def test_a_run_with_links_to_other_places_is_refused(tmp_path, monkeypatch):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    (run / "checkpoints").mkdir(parents=True)
    elsewhere.mkdir()
    (run / "config.yaml").touch()
    (run / "checkpoints/best.ckpt").touch()
    (run / "checkpoints/newest.ckpt").symlink_to("best.ckpt")  # a link inside is no danger
    check_links(run)
    for link, target in (("train.log", elsewhere / ".bashrc"), ("csv", elsewhere), ("checkpoints/x", elsewhere)):
        (run / link).symlink_to(target)
        for given in (str(run), str(run / "checkpoints/best.ckpt"), "last"):
            with pytest.raises(UsageError, match=f"REFUSED: .*{link} is a link to .*elsewhere"):
                run_directory(given, str(tmp_path), "train", "now")
        (run / link).unlink()
    (run / "round").symlink_to("round")  # a circle leads nowhere
    check_links(run)
    for place in ("wandb/run-1/logs", "scratch/wandb/run-1/logs"):
        (run / place).mkdir(parents=True)
        (run / place / "debug-core.log").symlink_to(elsewhere / "core.log")
    check_links(run)
    (run / "wandb/metrics.csv").symlink_to(elsewhere / "metrics.csv")
    with pytest.raises(UsageError, match=r"metrics\.csv is a link"):
        check_links(run)
    (run / "wandb/metrics.csv").unlink()
    os.mkfifo(run / "predictions.csv")
    with pytest.raises(UsageError, match=r"REFUSED: .*predictions\.csv is neither a file nor a folder"):
        check_links(run)
    (run / "predictions.csv").unlink()
    (run / "csv").symlink_to(elsewhere)
    monkeypatch.setenv("HEADSTART_TRUST", "places")
    check_links(run)


def test_only_the_cache_of_this_machine_is_used(composed, monkeypatch):
    config = composed()
    assert config.paths.cache == cache_of_this_machine()
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=False) | {"paths": {"cache": "/elsewhere"}})
    config.data.cache = config.cache.activations.root = config.cache.pictures.root = "/elsewhere"
    monkeypatch.setenv("HEADSTART_CACHE", "/here")
    use_cache_of_this_machine(config)
    assert config.cache.activations.root == config.cache.pictures.root == "/here/stores"
    assert config.data.cache == config.paths.cache == "/here"
    config.update({"cache": None})
    config.data.cache = None
    use_cache_of_this_machine(config)
    assert config.cache is config.data.cache is None
