"""Backbones from all classifiers of timm (PyTorch Image Models), by name."""

import math
import re
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.backbones.low_rank import add_low_rank
from headstart.backbones.meta import bad_size, count_features, parameters_on_meta
from headstart.backbones.timm_blocks import blocks_of
from headstart.backbones.timm_weights import Convert, load, noting_conversion, published_file
from headstart.backbones.weights import local_path, looks_like_path
from headstart.errors import UsageError
from headstart.inputs.images.preprocess import ImagePreprocess

RESIZE_MODES = {"center": "crop", "squash": "squash", "border": "letterbox"}
"""timm's `crop_mode` -> ours."""
OPTIONAL = {"drop_rate": 0.0, "dynamic_img_size": False}
"""Settings for each family that knows them: no dropout behind the last layer, because the head has its own; pictures
of one size, so that no table of positions depends on the inputs, and the network can be cut behind it."""
UNUSED = ("AuxLogits.",)
"""Prefixes of names in published files that are not used: an auxiliary head of Inception v3."""


class TimmBackbone(Backbone):
    """A classifier of timm without its last layer: pictures `(batch, 3, height, width)` -> `(batch, num_features)`.

    The features are the input of the last layer, as it was trained: the pooled map, the class token, or the output of a
    hidden layer behind the pooling.

    Args:
        name: one of `timm.list_models()`, or `<name>.<tag>` of `timm.list_pretrained()` to choose one of several
            published weights. It is only looked up there: names with `hf-hub:` or a path are refused.
        weights: `DEFAULT`: the published ones, downloaded once; a file (.safetensors, .pth, .bin); a checkpoint or the
            folder of an earlier run; None: random weights.
        image_size: side of the square input in pixels; None: the size that the weights were trained with. For another
            size, timm resamples tables of positions.
        resize_mode: how a picture becomes square: `crop`, `squash` or `letterbox`; None: as the weights expect it.
        drop_path_rate: probability with which the last block is skipped in training (stochastic depth); it rises
            linearly from the first block. None: timm's default, mostly 0.
        lora_rank: rank of the low-rank updates of a transformer, for `finetuning=lora`; None: no updates.

    Raises:
        UsageError: timm is not installed; an unknown name or size, a setting that this network does not have; weights
            that cannot be read or do not fit.
    """

    def __init__(
        self,
        name: str,
        weights: str | None = "DEFAULT",
        image_size: int | None = None,
        resize_mode: str | None = None,
        drop_path_rate: float | None = None,
        lora_rank: int | None = None,
    ):
        settings = _settings(name)
        is_published = weights == "DEFAULT"
        if not is_published and weights is not None and not looks_like_path(weights):
            raise _unknown_weights(name, weights)
        super().__init__(tuple(settings.mean), tuple(settings.std))
        self.preprocess = _preprocess(name, settings, image_size, resize_mode)
        self.pretrained = weights is not None
        options = {} if drop_path_rate is None else {"drop_path_rate": drop_path_rate}
        options["img_size"] = self.preprocess.image_size
        self.net, convert = _build(name, options, on_meta=self.pretrained)
        self.blocks = [f"net.{block}" for block in blocks_of(self.net)]
        self.num_features = count_features(self, name)
        if weights is not None:
            source = published_file(name, settings) if is_published else local_path(weights)
            load(self, source, is_published, convert, _cut_off(name, options, self.net))
        if lora_rank is not None:
            add_low_rank(self.net, lora_rank)
        self.to(memory_format=torch.channels_last)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures, uint8 or float in [0, 1] -> features `(batch, num_features)`."""
        return self.net(self.normalise(inputs))


def _settings(name: str) -> Any:
    """timm's `PretrainedCfg`: where the weights are, and how pictures are prepared."""
    try:
        from timm.models import get_pretrained_cfg
    except ImportError as error:
        raise UsageError(f'model.name={name} needs timm: pip install -e ".[timm]"') from error
    try:
        return get_pretrained_cfg(str(name), allow_unregistered=False)
    except RuntimeError as error:
        raise _unknown(name) from error


def _unknown(name: str) -> UsageError:
    """The error for a name that timm does not know, with the nearest that it knows."""
    import timm
    from timm.models import get_deprecated_models

    given = re.split("[:/]", str(name))[-1]  # as on the hub: hf-hub:timm/resnet50.a1_in1k
    base, _, tag = given.partition(".")
    models, published = timm.list_models(), timm.list_pretrained()
    new_names = get_deprecated_models()
    if base in models and tag and given not in published:
        tags = [each for each in published if each.startswith(f"{base}.")]
        return UsageError(
            f"timm has no weights '{name}'. Type model.name=<one of {', '.join(tags)}>"
            if tags
            else f"timm has no weights for {base}. Type model.name={base} model.weights=<path to a file>, or null"
        )
    if given in published or given in models:
        near = [given]
    else:
        near = [new_names[base]] if base in new_names else get_close_matches(base.lower(), models, n=3)
    hint = f", did you mean {' or '.join(near)}?" if near else "."
    return UsageError(
        f"timm has no network '{name}'{hint} Give a name of timm.list_models(), or <name>.<tag> of "
        "timm.list_pretrained(), as on https://huggingface.co/timm"
    )


def _unknown_weights(name: str, weights: str) -> UsageError:
    import timm

    tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    others = f" (or model.name=<one of {', '.join(tags)}> for other ones)" if len(tags) > 1 else ""
    return UsageError(
        f"model.weights={weights}: give DEFAULT for the published weights of {name}{others}, the path of a file or of "
        "an earlier run, or null for random weights"
    )


def _preprocess(name: str, settings: Any, image_size: int | None, resize_mode: str | None) -> ImagePreprocess:
    """As timm prepares pictures for evaluation; with `squash`, timm would also cut a narrow edge off."""
    _, height, width = settings.input_size
    if image_size is None and height != width:
        raise UsageError(
            f"pictures for {name} have {height} x {width} pixels; for square ones, give model.image_size={width}"
        )
    size = height if image_size is None else image_size
    resize = max(math.floor(size / settings.crop_pct), size) if isinstance(size, int) else size
    return ImagePreprocess(size, resize, settings.interpolation, resize_mode or RESIZE_MODES[settings.crop_mode])


def _build(name: str, options: dict[str, Any], on_meta: bool) -> tuple[nn.Module, Convert | None]:
    """The network without its last layer, and timm's function that converts a file for it.

    timm builds some networks in another way for its published weights than for random ones. Here they are the same, so
    that a checkpoint gets the network that it was saved from.
    """
    found: list[Convert] = []
    with noting_conversion(found):
        net = _instance(name, options, num_classes=0, on_meta=on_meta)
    return net, found[0] if found else None


def _instance(name: str, options: dict[str, Any], num_classes: int, on_meta: bool) -> nn.Module:
    """The network; on the meta device only if its constructor computes nothing with parameters or on their device."""
    if on_meta:
        with suppress(RuntimeError), parameters_on_meta():
            net = _create(name, options, num_classes)
            if not any(buffer.is_meta for buffer in net.buffers()):
                return net
    return _create(name, options, num_classes)


def _create(name: str, options: dict[str, Any], num_classes: int) -> nn.Module:
    """The network, with the arguments of `options` and `OPTIONAL` that its family knows.

    Raises:
        UsageError: it does not know `drop_path_rate`, or the size of pictures is not possible.
    """
    import timm

    arguments = options | OPTIONAL
    while True:
        try:
            return timm.create_model(name, pretrained=True, num_classes=num_classes, **arguments)
        except TypeError as error:
            unknown = next((argument for argument in arguments if f"'{argument}'" in str(error)), None)
            if unknown is None:
                raise
            if unknown == "drop_path_rate":
                raise UsageError(f"{name} has no stochastic depth: leave model.drop_path_rate out") from error
            del arguments[unknown]
        except (AssertionError, ValueError) as error:
            if "img_size" not in arguments:  # the size is not the reason
                raise
            raise bad_size(name, arguments["img_size"], error) from error


def _cut_off(name: str, options: dict[str, Any], net: nn.Module) -> set[str]:
    """Prefixes of the names of the layers that only the network with its classifier has."""
    with noting_conversion([]):
        whole = _instance(name, options, num_classes=2, on_meta=True)
    return {key.rpartition(".")[0] + "." for key in set(whole.state_dict()) - set(net.state_dict())} | set(UNUSED)
