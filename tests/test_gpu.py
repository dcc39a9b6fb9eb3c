"""What only a GPU can show; `python scripts/gpu_campaign.py` measures the rest."""

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from headstart.data.trained_run import load_data
from headstart.runs.directory import Run
from headstart.tasks import checkpoint
from headstart.training.build import build_data, build_task, build_trainer
from headstart.training.run import train

pytestmark = pytest.mark.gpu
GPU = ("trainer=gpu", "data.num_samples=160", "trainer.log_every_n_steps=100")


class WaitsFail(Callback):
    """Makes it an error that the CPU waits for the GPU after the first and before the last step of an epoch."""

    def __init__(self):
        self.steps = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps = batch_idx
        before_the_last = batch_idx + 2 >= trainer.num_training_batches
        torch.cuda.set_sync_debug_mode("default" if before_the_last else "error")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("finetuning", ["full", "feature_extraction"])
def test_no_step_waits_for_the_gpu(finetuning, precision, quick):
    cfg = quick(*GPU, f"finetuning={finetuning}", f"trainer.precision={precision}")
    trainer, data, watch = build_trainer(cfg), build_data(cfg), WaitsFail()
    task = build_task(cfg, data)
    trainer.callbacks.append(watch)
    try:
        trainer.fit(task, data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watch.steps > 3


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_run_is_the_same_network_on_the_cpu(precision, quick, tmp_path):
    result = train(quick(*GPU, f"trainer.precision={precision}"))
    run = Run(tmp_path / "run")
    task, trained = checkpoint.load_task(run.checkpoints_folder / "best.ckpt")
    data = load_data(trained.data, task.classes, task.backbone.preprocess, "val", run)
    task.eval()
    with torch.inference_mode():
        right = [(task(inputs).argmax(dim=1) == targets) for inputs, targets in data.loader("val")]
    accuracy = torch.cat(right).float().mean().item()
    assert accuracy == pytest.approx(result.metrics["val/acc"], abs=1.5 / 24)  # rounding may change one of 24 samples


def test_a_cached_run_is_the_uncached_run(quick, tmp_path):
    words = (*GPU, "finetuning=feature_extraction", "trainer.deterministic=true", "trainer.precision=32-true")
    losses = [
        train(quick(*words, f"paths.run={tmp_path / name}", *more)).metrics["val/loss"]
        for name, more in {"cached": [], "uncached": ["cache=off"]}.items()
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
