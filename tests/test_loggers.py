"""Loggers of other libraries, offline."""

import importlib.util

import pytest

from headstart.errors import UsageError
from headstart.training.build import build_trainer
from headstart.training.run import train


@pytest.mark.parametrize("library", ["wandb", "mlflow"])
def test_a_missing_library_is_told_with_what_to_type(library, quick, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == library else find_spec(name, *a))
    with pytest.raises(UsageError, match=rf'needs the library {library}: pip install -e "\.\[{library}\]"'):
        build_trainer(quick(f"logger={library}"))


@pytest.mark.slow
def test_wandb_has_a_run_for_each_training(quick, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason='needs pip install -e ".[wandb]"')
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with monkeypatch.context() as broken:
        broken.setattr("headstart.training.run.summarise", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(quick("logger=wandb", "trainer.max_epochs=1", f"paths.run={tmp_path / 'failed'}"))
    for job in ("one", "two"):
        train(quick("logger=wandb", "trainer.max_epochs=1", f"paths.run={tmp_path / job}"))
        assert wandb.run is None, "a sweep's next job would go on in it"
        assert len(list((tmp_path / job / "wandb").glob("offline-run-*/*.wandb"))) == 1
        assert (tmp_path / job / "csv/metrics.csv").is_file()


@pytest.mark.slow
def test_mlflow_has_the_metrics_of_the_run(quick, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason='needs pip install -e ".[mlflow]"')
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "logs").mkdir()
    result = train(quick("logger=mlflow", "trainer.max_epochs=1", "name=mine"))
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'logs'}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.data.metrics["test/acc"] == pytest.approx(result.metrics["test/acc"])
    assert run.info.status == "FINISHED"
