"""Prints a table of timm's networks: layer groups, length of the features, and where activations can be cached.

    python scripts/list_timm.py                        # the smallest network of each family; takes some minutes
    python scripts/list_timm.py vit_small_patch14_dinov2 'convnextv2_*'

Nothing is downloaded. The networks have no values (meta device), so only shapes are computed.
"""

import argparse
import warnings
from collections.abc import Iterator

import timm

from headstart.backbones.meta import parameters_on_meta
from headstart.backbones.parts import NoCleanCutError, in_two_parts
from headstart.backbones.timm import TimmBackbone
from headstart.errors import UsageError

COLUMNS = "family", "names", "network", "million parameters", "layer groups", "features", "cached"


def main() -> None:
    """Prints one line per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="names or patterns such as 'vit_*'; none: one of each family")
    patterns = parser.parse_args().networks
    warnings.filterwarnings("ignore")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for network in timm.list_models(patterns) if patterns else smallest_of_each_family():
        print("| " + " | ".join(map(str, row(network))) + " |", flush=True)


def smallest_of_each_family() -> Iterator[str]:
    """The network with the fewest parameters of each of timm's files."""
    for family in timm.list_modules():
        if networks := timm.list_models(module=family):
            yield min(networks, key=number_of_parameters)


def number_of_parameters(network: str) -> int:
    """Parameters of the network without classifier."""
    try:
        with parameters_on_meta():
            net = timm.create_model(network, num_classes=0)
    except RuntimeError:  # its constructor computes with parameters
        net = timm.create_model(network, num_classes=0)
    return sum(parameter.numel() for parameter in net.parameters())


def row(network: str) -> tuple:
    """The entries of a line."""
    family = timm.models.model_entrypoint(network).__module__.rpartition(".")[2]
    names = len(timm.list_models(module=family))
    try:
        backbone = build(network)
        groups = backbone.layer_groups()
    except (UsageError, ValueError) as error:
        return family, names, network, "", "", "", str(error)
    millions = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    return family, names, network, f"{millions:.1f}", len(groups), backbone.num_features, caching(backbone)


def build(network: str) -> TimmBackbone:
    """The backbone on the meta device, frozen as while activations are cached."""
    try:
        with parameters_on_meta():
            backbone = TimmBackbone(network, weights=None)
    except RuntimeError:
        backbone = TimmBackbone(network, weights=None)
    return backbone.to("meta").eval().requires_grad_(False)


def caching(backbone: TimmBackbone) -> str:
    """Behind which layer groups activations can be cached; behind the whole backbone they always can."""
    inner = len(backbone.layer_groups()) - 1
    reasons = {}
    for count in range(1, inner + 1):
        try:
            in_two_parts(backbone, count)
        except NoCleanCutError as error:
            reasons[count] = str(error)
    if not reasons:
        return "behind each group"
    reason = next(iter(reasons.values()))
    if len(reasons) == inner:
        return f"features only: {reason}"
    return f"behind {inner - len(reasons)} of {inner} groups, not behind {', '.join(map(str, reasons))}: {reason}"


if __name__ == "__main__":
    main()
