"""Serves a trained run on this machine: a page to drop a picture on, and a JSON endpoint.

python src/serve.py run=last                          then open http://127.0.0.1:8000
curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict
"""

import hydra
from omegaconf import DictConfig

from headstart.cli import choices, resolvers
from headstart.cli import run as cli
from headstart.runs.directory import find_checkpoint

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(cli.CONF), config_name="serve")
def main(cfg: DictConfig) -> None:
    """Answers until Ctrl-C."""
    choices.check_serve(cfg)
    path = find_checkpoint(cfg.run, cfg.checkpoint, cfg.logs)
    # imported here: `--help` and a misspelt word are answered without loading torch and Lightning
    from headstart.inference.server import serve

    serve(cfg, path)


if __name__ == "__main__":
    cli.run(main, "serve")
