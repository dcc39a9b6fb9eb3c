"""Headstart: transfer learning with PyTorch Lightning and Hydra.

import headstart
run = headstart.train("my/pictures", model="resnet50", max_time="10m")
run.predict(["a.jpg"])

docs/python.md describes everything.
"""

from headstart import light_imports
from headstart.api.trained import TrainedRun, load, train
from headstart.errors import Failure, UsageError

__all__ = ["Failure", "TrainedRun", "UsageError", "load", "train"]
__version__ = "0.1.0"
light_imports.begin()  # before anything imports Lightning
