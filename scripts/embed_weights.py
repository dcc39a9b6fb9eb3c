"""Converts the best checkpoint of a pretraining run into the safetensors file that is part of the project.

python scripts/embed_weights.py <run directory> [target.safetensors]
"""

import sys
from pathlib import Path

from safetensors.torch import save_file

from headstart.runs.directory import find_checkpoint
from headstart.tasks import checkpoint

TARGET = Path(__file__).parents[1] / "src/headstart/backbones/weights/tiny_resnet_letters.safetensors"


def main(run: str, target: str = str(TARGET)) -> None:
    """Copies the tensors of the backbone, without the counters that only training needs."""
    state = checkpoint.read(find_checkpoint(run))["state_dict"]
    backbone = {
        name.removeprefix("backbone."): tensor.contiguous()
        for name, tensor in state.items()
        if name.startswith("backbone.") and not name.endswith("num_batches_tracked")
    }
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    save_file(backbone, target, metadata={"source": "python src/train.py experiment=pretrain_letters"})
    print(f"{target}: {len(backbone)} tensors, {Path(target).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
