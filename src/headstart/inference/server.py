"""Serves one trained run on this machine."""

import logging
import socket
from pathlib import Path

import torch
import uvicorn
from omegaconf import DictConfig

from headstart.cli.schemas import host_names
from headstart.errors import UsageError
from headstart.evaluation.explanations.attribution import has_captum
from headstart.evaluation.explanations.by_input import can_explain
from headstart.inference.app import Model, build_app
from headstart.inference.classifier import Classifier
from headstart.inference.facts import facts_of
from headstart.inference.guards import CONNECTIONS, TimedProtocol
from headstart.tasks import checkpoint

log = logging.getLogger(__name__)


def serve(cfg: DictConfig, path: Path) -> None:
    """Serves the model until Ctrl-C.

    Raises:
        UsageError: there is no such device, or the port is in use.
    """
    task, trained = checkpoint.load_task(path)
    facts = facts_of(task, trained, path)
    model = Model(Classifier(task), device_of(cfg.accelerator), round(cfg.max_megapixels * 1e6))
    maps = has_captum() and can_explain(task.backbone.preprocess)
    app = build_app(model, round(cfg.max_mb * 1e6), cfg.top_k, maps, host_names(cfg), facts)
    if not has_captum():
        log.info('explanations (map=true) are off: they need pip install -e ".[explain]"')
    limits = {"http": TimedProtocol, "limit_concurrency": CONNECTIONS}
    config = uvicorn.Config(app, host=cfg.host, port=cfg.port, log_level="warning", **limits)
    try:
        bound = config.bind_socket()
    except SystemExit as error:  # uvicorn has logged why
        raise UsageError(f"host={cfg.host} port={cfg.port} cannot be used: give another port=<number>") from error
    _Server(config, path).run(sockets=[bound])


class _Server(uvicorn.Server):
    """Logs its address when it is ready."""

    def __init__(self, config: uvicorn.Config, path: Path):
        super().__init__(config)
        self.path = path

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or []:
            log.info("serving %s on http://%s:%d, stop with Ctrl-C", self.path, *each.getsockname()[:2])


def device_of(accelerator: str) -> torch.device:
    """The device for a setting; `auto` is the GPU if there is one.

    Raises:
        UsageError: this machine does not have the device.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if accelerator == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    name = {"gpu": "cuda"}.get(accelerator, accelerator)
    if not there.get(name):
        raise UsageError(f"accelerator={accelerator}: this machine has none; use auto, cpu, gpu or mps")
    return torch.device(name)
