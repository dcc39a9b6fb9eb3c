"""Networks of timm keep the backbone contract, compute what timm computes, and load weights strictly."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from families import TIMM_FEW, TIMM_SMALLEST, check_layer_groups, exhaustive_unless, with_random_values
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import functional as transforms

from headstart.backbones import timm_weights
from headstart.backbones.low_rank import low_rank_parameters
from headstart.backbones.meta import parameters_on_meta
from headstart.backbones.parts import NoCleanCutError, in_parts, in_two_parts
from headstart.backbones.timm import TimmBackbone, _build
from headstart.cli.conf_files import CONF
from headstart.errors import UsageError
from headstart.inputs.images.preprocess import ImagePreprocess
from headstart.runs.trust import is_buildable

timm = pytest.importorskip("timm")
YAMLS = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if "[timm, _self_]" in path.read_text())
NOWHERE = {"crossvit", "gemma4_vit", "nasnet", "pit", "pnasnet", "qwen3_vit", "tnt", "twins"}
"""Families that can be cut nowhere: several tensors go from block to block, or the code cannot be recorded."""
VIT, CONV = "test_vit", "test_efficientnet"


def skip_unless_known(name: str) -> None:
    if name not in timm.list_models():
        pytest.skip(f"timm {timm.__version__} has no {name}")


def on_meta(name: str, **arguments) -> TimmBackbone:
    try:
        with parameters_on_meta():
            backbone = TimmBackbone(name, weights=None, **arguments)
    except RuntimeError:  # its constructor computes with parameters
        backbone = TimmBackbone(name, weights=None, **arguments)
    return backbone.to("meta")


def whole(name: str, **arguments) -> nn.Module:
    """timm's network with its classifier and random values."""
    torch.manual_seed(0)
    return with_random_values(timm.create_model(name, num_classes=7, **arguments)).eval()


def saved(net: nn.Module, path: Path) -> str:
    torch.save(net.state_dict(), path)
    return str(path)


def pictures(size: int, number: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8)


@pytest.mark.parametrize("family", exhaustive_unless(TIMM_FEW, timm.list_modules()))
def test_contract(family):
    names = timm.list_models(module=family)
    if not names:
        pytest.skip("only deprecated names")
    name = TIMM_SMALLEST.get(family) or min(names, key=len)
    skip_unless_known(name)
    backbone = on_meta(name).requires_grad_(False).eval()
    assert isinstance(backbone.preprocess, ImagePreprocess)
    size = backbone.preprocess.image_size
    features = backbone(torch.empty(2, 3, size, size, dtype=torch.uint8, device="meta"))
    assert features.shape == (2, backbone.num_features)

    groups = backbone.layer_groups()
    check_layer_groups(groups, backbone)
    assert all(any(p.ndim > 1 for p in group.parameters()) for group in groups[1:]), "no group of a norm alone"

    parts, _ = parts_of(backbone)
    assert (len(parts) > 1) == (family not in NOWHERE)
    x = torch.empty(2, 3, size, size, dtype=torch.uint8, device="meta")
    for part in parts:
        x = part(x)
        assert isinstance(x, torch.Tensor)
    assert x.shape == features.shape


def parts_of(backbone: TimmBackbone) -> tuple[list[nn.Module], list[int]]:
    """The backbone, cut at all places where this is possible."""
    places = list(range(1, len(backbone.layer_groups())))
    try:
        return in_parts(backbone, places), places
    except NoCleanCutError:
        places = [place for place in places if can_be_cut(backbone, place)]
        return in_parts(backbone, places), places


def can_be_cut(backbone: TimmBackbone, place: int) -> bool:
    try:
        return bool(in_two_parts(backbone, place))
    except NoCleanCutError:
        return False


@pytest.mark.parametrize(
    "family",
    exhaustive_unless(TIMM_FEW[:-1], [family for family in TIMM_SMALLEST if family not in NOWHERE]),
)
def test_the_same_bits_at_every_cut(family):
    skip_unless_known(TIMM_SMALLEST[family])
    backbone = with_random_values(TimmBackbone(TIMM_SMALLEST[family], weights=None)).eval().requires_grad_(False)
    images = pictures(backbone.preprocess.image_size, 3)
    expected = backbone(images)
    assert expected.std() > 1e-3
    parts, places = parts_of(backbone)
    x = images
    for part in parts:
        x = part(x)
    assert torch.equal(x, expected)
    for place in {places[0], places[len(places) // 2]}:
        prefix, rest = in_two_parts(backbone, place)
        assert torch.equal(rest(prefix(images)), expected)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "swinv2_tiny_window8_256"])
def test_transformers_can_be_cut_at_every_block(name):
    backbone = on_meta(name).requires_grad_(False)
    groups = len(backbone.layer_groups())
    assert groups >= 5
    assert len(in_parts(backbone, list(range(1, groups + 1)))) == groups + 1


@pytest.mark.parametrize("file", YAMLS)
def test_files_of_conf_name_published_weights(file):
    config = OmegaConf.load(CONF / "model" / f"{file}.yaml")
    assert config.name in timm.list_pretrained()
    backbone = on_meta(config.name, image_size=config.get("image_size"))
    millions = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    comment = (CONF / "model" / f"{file}.yaml").read_text().splitlines()[0]
    assert f"{millions:.1f} M parameters, {backbone.preprocess.image_size} pixels" in comment


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "vit_base_patch16_siglip_224", "vit_small_patch16_224"])
def test_preprocessing_is_timms(name):
    """The whole way from a picture, up to rounding to uint8."""
    picture = transforms.resize(torch.rand(3, 12, 16).mul(255).to(torch.uint8), [300, 400])
    backbone = on_meta(name)
    settings = timm.data.resolve_data_config({}, model=timm.create_model(name))
    theirs = timm.data.create_transform(**settings)(Image.fromarray(picture.permute(1, 2, 0).numpy()))
    mean, std = torch.tensor(settings["mean"]).view(-1, 1, 1), torch.tensor(settings["std"]).view(-1, 1, 1)
    ours = (backbone.preprocess(picture) / 255 - mean) / std
    assert ours.shape == theirs.shape
    off = (ours - theirs).abs()
    assert off.max() < 0.06, "more than three levels of 255"
    assert off.mean() < 0.006, "a third of a level on average"


def test_mean_and_std_are_timms():
    backbone = TimmBackbone("tf_efficientnet_lite0", weights=None)
    assert backbone.constants() == {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.mark.parametrize(
    "name",
    [
        "test_efficientnet", "test_vit", "test_convnext2", "lcnet_035",
        "regnety_002",  # timm converts its files without looking at the network
        "swin_tiny_patch4_window7_224",  # computes a mask on the device of its parameters
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("densenet121", "crossvit_tiny_240", "vgg11")),
    ],
)  # fmt: skip
def test_features_and_last_layer_give_timms_logits(name, tmp_path):
    net = whole(name)
    backbone = TimmBackbone(name, saved(net, tmp_path / "net.pth")).eval()
    assert backbone.pretrained
    images = pictures(backbone.preprocess.image_size)
    with torch.no_grad():
        expected = net(backbone.normalise(images))
        assert expected.std() > 1e-3
        classifier = net.get_classifier()
        if isinstance(classifier, nn.ModuleList):  # of several branches, whose logits are averaged
            return
        torch.testing.assert_close(classifier(backbone(images)), expected, rtol=1e-3, atol=1e-4)


def test_there_is_no_second_dropout():
    """Some networks of timm have dropout before the classifier; here the head has it."""
    backbone = TimmBackbone("ghostnet_050", weights=None).train()
    assert timm.create_model("ghostnet_050").drop_rate > 0
    assert backbone.net.drop_rate == 0


def test_half_precision_becomes_single_precision(tmp_path):
    net = whole(VIT)
    state = {key: tensor.half().contiguous() for key, tensor in net.state_dict().items() if "head" not in key}
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    backbone = TimmBackbone(VIT, str(tmp_path / "net.safetensors"))
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    assert torch.equal(backbone.net.pos_embed, net.pos_embed.half().float())


def test_a_table_of_positions_is_resampled_and_this_is_said(tmp_path, caplog):
    net = whole(VIT)
    path = saved(net, tmp_path / "net.pth")
    with caplog.at_level(logging.INFO):
        same = TimmBackbone(VIT, path)
        assert not caplog.records
        larger = TimmBackbone(VIT, path, image_size=224)
    assert "timm resamples pos_embed from (1, 101, 64) to (1, 197, 64)" in caplog.text
    assert same.preprocess.image_size == 160
    assert larger.preprocess.image_size == 224
    assert larger(pictures(224)).shape == (2, 64)
    for (name, one), other in zip(same.net.named_parameters(), larger.net.parameters(), strict=True):
        assert name == "pos_embed" or torch.equal(one, other)


def change(state, what):
    if what == "missing":
        del state["blocks.0.norm1.weight"]
    if what == "unexpected":
        state["blocks.9.norm1.weight"] = torch.ones(64)
    if what == "patches":
        state["patch_embed.proj.weight"] = torch.rand(64, 3, 8, 8)
    if what == "width":
        state["blocks.0.norm1.weight"] = torch.ones(32)
    if what == "nan":
        state["blocks.0.norm1.weight"][0] = torch.nan
    return state


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "blocks.0.norm1.weight"),
        ("unexpected", "blocks.9.norm1.weight"),
        ("patches", r"'patch_embed.proj.weight' has the shape \(64, 3, 8, 8\), not \(64, 3, 16, 16\)"),
        ("width", "size mismatch for blocks.0.norm1.weight"),
        ("nan", "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(what, message, tmp_path):
    torch.save(change(whole(VIT).state_dict(), what), tmp_path / "net.pth")
    with pytest.raises(UsageError, match=message):
        TimmBackbone(VIT, str(tmp_path / "net.pth"))


def test_a_file_with_code_is_refused(tmp_path):
    torch.save({"net": whole(CONV)}, tmp_path / "net.pth")
    with pytest.raises(UsageError, match="cannot read"):
        TimmBackbone(CONV, str(tmp_path / "net.pth"))


def test_an_earlier_run_gives_its_backbone_with_low_rank_updates_merged(tmp_path):
    first = with_random_values(TimmBackbone(VIT, weights=None, lora_rank=2)).eval()
    first.mean.fill_(0.25)
    state = {f"backbone.{key}": tensor for key, tensor in first.state_dict().items()}
    torch.save({"state_dict": state | {"head.weight": torch.ones(2, 2)}}, tmp_path / "best.ckpt")
    second = TimmBackbone(VIT, str(tmp_path / "best.ckpt")).eval()
    images = pictures(160)
    assert second.constants()["mean"] == [0.25] * 3
    torch.testing.assert_close(second(images), first(images), rtol=1e-4, atol=1e-4)


def test_published_weights_come_from_the_hub(tmp_path, monkeypatch):
    asked = []

    def from_hub(repository, file, **_):
        asked.append((repository, file))
        return None if file == "model.safetensors" else tmp_path / file

    saved(whole(CONV), tmp_path / "pytorch_model.bin")
    monkeypatch.setattr(timm_weights, "from_hub", from_hub)
    assert TimmBackbone(CONV).pretrained
    assert asked == [(f"timm/{CONV}.r160_in1k", file) for file in timm_weights.FILES]


def test_without_a_network_the_message_says_what_to_download_and_where_to(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    with pytest.raises(UsageError) as raised:
        TimmBackbone("vit_small_patch14_dinov2")
    message = str(raised.value)
    assert "cannot download model.safetensors of timm/vit_small_patch14_dinov2.lvd142m from http://127" in message
    assert "hf download timm/vit_small_patch14_dinov2.lvd142m, which keeps it in" in message
    assert "model.weights=<path to a file>, or model.weights=null for random weights" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5O"}, r"timm has no network 'resnet5O', did you mean resnet50 or "),
        ({"name": "vit_small_patch14_dinov2.lvd142"}, r"Type model.name=<one of vit_small_patch14_dinov2.lvd142m>"),
        ({"name": "timm/resnet50.a1_in1k"}, "did you mean resnet50.a1_in1k?"),
        ({"name": "hf-hub:timm/resnet50.a1_in1k"}, "did you mean resnet50.a1_in1k?"),
        ({"name": "hf-hub:stranger/net"}, "timm has no network 'hf-hub:stranger/net'"),
        ({"name": "tf_efficientnet_b0_ns"}, "did you mean tf_efficientnet_b0.ns_jft_in1k?"),
        ({"name": CONV, "weights": "r160"}, "model.weights=r160: give DEFAULT"),
        ({"name": "halonet_h1"}, "timm has no weights for halonet_h1"),
        ({"name": VIT, "image_size": 0}, "whole number of pixels"),
        ({"name": "vgg11", "weights": None, "drop_path_rate": 0.1}, "vgg11 has no stochastic depth"),
        ({"name": "levit_128s", "weights": None, "image_size": 100}, "model.image_size=100 does not work with levit"),
        ({"name": CONV, "weights": None, "lora_rank": 4}, "this network has no attention"),
        ({"name": "mobilenetv4_hybrid_medium", "weights": None, "lora_rank": 4}, "no attention with linear layers"),
        ({"name": "RESNET50", "weights": None}, "did you mean resnet50"),
        ({"name": 123, "weights": None}, "timm has no network '123'"),
        ({"name": CONV, "weights": None, "resize_mode": "zoom"}, "resize_mode='zoom' does not exist"),
    ],
    ids=str,
)
def test_mistakes_are_answered_in_a_sentence(arguments, message):
    with pytest.raises(UsageError, match=message):
        TimmBackbone(**arguments)


def test_pictures_that_are_not_square_are_refused():
    skip_unless_known("vit_base_patch16_sapiens2")
    with pytest.raises(UsageError, match="have 1024 x 768 pixels; for square ones"):
        TimmBackbone("vit_base_patch16_sapiens2", weights=None)


@pytest.mark.parametrize("name", ["local-dir:{folder}", "{folder}", "hf-hub:{folder}", "./{folder}"])
def test_a_name_is_never_a_place(name, tmp_path):
    """A name may come from a stranger's checkpoint; timm would read a config and weights from these places."""
    settings = {"architecture": "resnet18", "pretrained_cfg": {"tag": "x"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert is_buildable("model", "headstart.backbones.timm.TimmBackbone")
    with pytest.raises(UsageError, match="timm has no network"):
        TimmBackbone(name.format(folder=tmp_path), weights=None)


def test_a_checkpoint_gets_the_network_it_was_saved_from_without_a_download(tmp_path, monkeypatch):
    """timm gives `fbnetc_100` another epsilon for its published weights than for random ones."""
    monkeypatch.setattr(timm_weights, "from_hub", lambda *_, **__: pytest.fail("would download"))
    net = timm.create_model("fbnetc_100", bn_eps=1e-3)
    first = TimmBackbone("fbnetc_100", saved(net, tmp_path / "net.pth")).eval()
    second = TimmBackbone("fbnetc_100", weights=None).eval()
    second.load_state_dict(first.state_dict())
    images = pictures(64)
    assert torch.equal(first(images), second(images))
    assert first.net.bn1.eps == 1e-3


def test_stochastic_depth():
    depths = {
        rate: [module.drop_prob for module in TimmBackbone(VIT, None, drop_path_rate=rate).modules() if named(module)]
        for rate in (None, 0.5)
    }
    assert max(depths[None], default=0) == 0
    assert max(depths[0.5]) == 0.5


def named(module: nn.Module) -> bool:
    return type(module).__name__ == "DropPath"


@pytest.mark.parametrize("name", [VIT, "vit_small_patch16_dinov3"])
def test_low_rank_updates_of_transformers(name):
    torch.manual_seed(0)
    plain = TimmBackbone(name, None, image_size=64).eval()
    torch.manual_seed(0)
    updated = TimmBackbone(name, None, image_size=64, lora_rank=2).eval()
    updates = low_rank_parameters(updated)
    assert len(updates) == 2 * sum(isinstance(module, nn.Linear) for module in plain.modules())
    images = pictures(64)
    assert torch.equal(plain(images), updated(images))
    with torch.no_grad():
        for update in updates:
            update.normal_()
    assert not torch.allclose(plain(images), updated(images))


def test_a_convolution_takes_pictures_of_any_size():
    backbone = TimmBackbone(CONV, None, image_size=96)
    assert backbone.preprocess.image_size == 96
    assert backbone(pictures(96)).shape == (2, 256)


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r'model.name=resnet18 needs timm: pip install -e ".\[timm\]"'):
        TimmBackbone("resnet18")


def test_nothing_loads_timm_before_a_network_is_built():
    code = "import sys, headstart.backbones.timm; sys.exit('timm' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(CONF.parent / "src")}
        ).returncode
        == 0
    )


def test_timms_own_loader_is_back_after_a_build():
    from timm.models import _builder

    before = _builder.load_pretrained
    _, convert = _build(VIT, {}, on_meta=True)
    assert convert is not None, "timm's function that resamples positions was not found"
    assert _builder.load_pretrained is before
