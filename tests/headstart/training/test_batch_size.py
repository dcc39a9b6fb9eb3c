import logging

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from headstart.errors import Failure
from headstart.tasks.base import Task
from headstart.training import batch_size
from headstart.training.batch_size import fits, largest_that_fits, most_useful
from headstart.training.build import build_data
from headstart.training.settle import settle


@pytest.mark.parametrize(("room", "most", "found"), [(100, 1024, 64), (5000, 256, 256), (9, 1024, 8), (1, 64, 1)])
def test_the_largest_power_of_two_that_fits(room, most, found):
    tried = []
    assert largest_that_fits(lambda size: tried.append(size) or size <= room, most) == found
    assert len(tried) == len(set(tried))


def test_a_model_that_does_not_fit_at_all_is_a_failure_in_words():
    with pytest.raises(Failure, match="too little memory for a single sample"):
        largest_that_fits(lambda size: False, 1024)


@pytest.mark.parametrize(("samples", "most"), [(10, 32), (1279, 32), (1280, 64), (10_000, 256), (10**6, 1024)])
def test_an_epoch_keeps_some_steps(samples, most):
    assert most_useful(samples) == most


@pytest.fixture
def small_gpu(monkeypatch):
    """The sizes that were tried on a device without room for 64 of the pictures."""
    sizes, usual = [], Task.training_step

    def step(self, batch, index):
        sizes.append(len(batch[1]))
        if sizes[-1] >= 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if not all(parameter.requires_grad for parameter in self.head.parameters()):
            raise AssertionError("the closed-form stage needs no memory")
        return usual(self, batch, index)

    monkeypatch.setattr(Task, "training_step", step)
    return sizes


def test_too_little_memory_is_found_out_by_training_everything(quick, small_gpu):
    cfg = quick("finetuning=lp_ft", "data.num_samples=300")
    data, before = build_data(cfg), torch.get_rng_state()
    assert fits(cfg, data, 32)
    assert not fits(cfg, data, 64)
    assert small_gpu == [32, 32, 64]
    assert torch.equal(torch.get_rng_state(), before)


def test_other_errors_are_not_taken_for_too_little_memory(quick, monkeypatch):
    def step(*_):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Task, "training_step", step)
    cfg = quick()
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fits(cfg, build_data(cfg), 16)


def test_the_choice_is_saved_and_told(quick, monkeypatch, caplog):
    choice = batch_size.Choice(64, "the largest power of two that fits: 128 does not")
    monkeypatch.setattr("headstart.training.settle.choose_batch_size", lambda cfg, data: choice)
    with caplog.at_level(logging.INFO):
        settled = settle(quick("data.batch_size=auto", "trainer.accumulate_grad_batches=2"))
    assert settled.cfg.data.batch_size == settled.data.batch_size == 64
    assert "data.batch_size=64: the largest power of two that fits: 128 does not; 128 samples per" in caplog.text
    assert "depends on this machine" in caplog.text


def test_without_a_gpu_it_is_the_usual_one(quick):
    assert settle(quick("data.batch_size=auto")).cfg.data.batch_size == batch_size.USUAL


def test_a_data_set_alone_knows_no_auto(quick):
    cfg = quick()
    OmegaConf.update(cfg, "data.batch_size", "auto")
    with pytest.raises(InstantiationException, match=r"data\.batch_size=auto: give a whole number"):
        build_data(cfg)
