"""Serves a trained run on this machine: a page to drop pictures on or to write a text on, and a JSON
endpoint.

python src/serve.py run=last                          then open http://127.0.0.1:8000
curl -F file=@cat.jpg -F file=@dog.jpg http://127.0.0.1:8000/predict
curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict
"""

import hydra
from omegaconf import DictConfig

from headstart.cli import resolvers
from headstart.cli.conf_files import CONF
from headstart.cli.run import announce_loading, run_entry_point
from headstart.cli.schemas import check_serve
from headstart.runs.directory import find_checkpoint

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="serve")
def main(cfg: DictConfig) -> None:
    """Serves the run until Ctrl-C."""
    check_serve(cfg)
    checkpoint = find_checkpoint(cfg.run, cfg.checkpoint, cfg.logs)
    # imported here, so that `--help` and a mistake are answered without loading torch and Lightning
    announce_loading()
    from headstart.inference.server import serve

    serve(cfg, checkpoint)


if __name__ == "__main__":
    run_entry_point(main, "serve")
