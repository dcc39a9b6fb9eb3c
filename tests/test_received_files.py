"""Files that somebody sent run nothing, whatever command reads them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from headstart.errors import UsageError
from headstart.tasks import checkpoint

SRC = Path(__file__).parents[1] / "src"


@pytest.fixture
def sent(trained, tmp_path):
    """A run whose checkpoint and config run a command that makes a file, if they are built."""
    run = trained()
    made = tmp_path / "executed"
    payload = {"_target_": "torch.utils.collect_env.run", "command": f"touch {made}"}

    def spoil(section: str, key: str) -> Path:
        for file in (run / "checkpoints").glob("*.ckpt"):
            content = torch.load(file, weights_only=True)
            content["hyper_parameters"]["config"][section][key] = payload
            torch.save(content, file)
        config = OmegaConf.load(run / "config.yaml")
        config[section][key] = payload
        OmegaConf.save(config, run / "config.yaml")
        return run

    spoil.made = made
    return spoil


COMMANDS = {
    "predict": ["input=."],
    "evaluate": [],
    "export": ["format=safetensors"],
    "report": [],
    "serve": [],
    "push": ["repo=me/model", "confirm=true"],
}


@pytest.mark.slow
@pytest.mark.parametrize("section", [pytest.param("model", marks=pytest.mark.exhaustive), "callbacks"])
def test_no_command_runs_it(section, sent, tmp_path):
    run = sent(section, "evil")
    environment = {**os.environ, "HEADSTART_LOGS": str(tmp_path)}
    commands = {name: [f"run={run}", *words] for name, words in COMMANDS.items()} | {"train": [f"resume={run}"]}
    for name, words in commands.items():
        done = subprocess.run(
            [sys.executable, str(SRC / f"{name}.py"), *words], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 2, (name, done.stdout, done.stderr)
        assert f"REFUSED: the saved config would build torch.utils.collect_env.run at {section}.evil" in done.stderr
        assert "Traceback" not in done.stderr
    assert not sent.made.exists()


@pytest.mark.parametrize(
    ("section", "key"), [("optimizer", "lr"), ("model", "resize_mode"), ("data", "seed"), ("finetuning", "patience")]
)
def test_a_checkpoint_is_refused_before_anything_is_built(section, key, sent):
    run = sent(section, key)
    with pytest.raises(UsageError, match=f"at {section}.{key}"):
        checkpoint.load_task(run / "checkpoints/best.ckpt")
    assert not sent.made.exists()


def test_the_preprocessing_of_a_checkpoint_is_checked_too(trained):
    file = trained() / "checkpoints/best.ckpt"
    content = torch.load(file, weights_only=True)
    content["hyper_parameters"]["preprocess"] = {"_target_": "subprocess.Popen", "args": "true"}
    torch.save(content, file)
    with pytest.raises(UsageError, match=r"would build subprocess\.Popen at preprocess"):
        checkpoint.load_task(file)


def changed(run: Path, **facts) -> Path:
    """The best checkpoint of a run, with other facts."""
    file = run / "checkpoints/best.ckpt"
    content = torch.load(file, weights_only=True)
    content["hyper_parameters"] |= facts
    torch.save(content, file)
    return file


def test_a_tokenizer_is_a_text_and_nothing_is_built_from_it(trained, tmp_path):
    run = trained()
    payload = {"_target_": "torch.utils.collect_env.run", "command": f"touch {tmp_path / 'executed'}"}
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["hyper_parameters"]
    config = content["config"] | {"model": content["config"]["model"] | {"tokenizer": None}}
    file = changed(run, config=config, preprocess=content["preprocess"] | {"tokenizer": payload})
    with pytest.raises(UsageError, match=r"would build torch\.utils\.collect_env\.run at preprocess\.tokenizer"):
        checkpoint.load_task(file)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "facts",
    [
        {"classes": 5},
        {"classes": ["a"]},
        {"preprocess": "x"},
        {"preprocess": {"size": 5}},
        {"config": {"model": None}},
        {"config": []},
        {"class_weights": ["x"]},
        {"classes": ["a"] * 3_000_000},
        {"classes": [1, 2]},
        {"temperature": "warm"},
        {"temperature": 10**400},
        {"temperature": float("nan")},
        {"thresholds": "x"},
    ],
    ids=lambda facts: str(facts)[:40],
)
def test_a_checkpoint_with_wrong_facts_is_named(facts, trained):
    file = changed(trained(), **facts)
    with pytest.raises(UsageError, match=r"best\.ckpt( is damaged| is no checkpoint|: .*)"):
        checkpoint.load_task(file)


def test_a_description_with_huge_sizes_fills_no_memory(trained):
    run = trained()
    config = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["hyper_parameters"]["config"]
    head = {"_target_": "headstart.heads.mlp.MLPHead", "_partial_": True, "hidden_sizes": [30_000, 30_000]}
    file = changed(run, config=config | {"head": head})  # 3.6 GB
    with pytest.raises(UsageError, match=r"best\.ckpt.*the network has more than 20\d,\d+,\d+ parameters"):
        checkpoint.load_task(file)


def test_a_received_run_uses_the_cache_of_this_machine(trained, tmp_path, monkeypatch):
    run = trained()
    config = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["hyper_parameters"]["config"]
    config["cache"]["activations"]["root"] = config["paths"]["cache"] = str(tmp_path / "elsewhere")
    file = changed(run, config=config)
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "here"))
    _, config = checkpoint.load_task(file)
    assert config.cache.activations.root == f"{tmp_path}/here/stores"
