"""Every torchvision classifier keeps the backbone contract and computes what torchvision computes."""

import warnings
from pathlib import Path

import pytest
import torch
import torchvision
from families import FEW, SMALLEST, check_layer_groups, exhaustive_unless
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import functional as transforms

from headstart.backbones.meta import parameters_on_meta
from headstart.backbones.torchvision import TorchvisionBackbone, _find_weights, _preprocess
from headstart.backbones.torchvision_families import FAMILIES, find_family
from headstart.errors import UsageError
from headstart.inputs.images.preprocess import ImagePreprocess

CONF = Path(__file__).parents[3] / "conf"
MODELS = torchvision.models.list_models(module=torchvision.models)
YAMLS = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if "torchvision" in path.read_text())


def on_meta(name: str, **arguments) -> TorchvisionBackbone:
    with parameters_on_meta():
        return TorchvisionBackbone(name, weights=None, **arguments)


def materialise(net: nn.Module) -> nn.Module:
    """Random values at which a mistake shows, in a fraction of the time of torchvision's own start."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            values = torch.empty(parameter.shape).uniform_(-1.7 * spread, 1.7 * spread, generator=generator)
            centre = float(name == "weight" and parameter.ndim == 1)
            setattr(module, name, nn.Parameter(values + centre))
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net.eval()


def reference(name: str, size: int = 224) -> nn.Module:
    """torchvision's own network, set up as torchvision does when it loads weights."""
    argument = find_family(name).size_argument
    arguments = {argument: (size, size) if argument == "input_size" else size} if argument else {}
    if name in ("googlenet", "inception_v3"):
        arguments |= {"init_weights": False, "transform_input": True}
    with parameters_on_meta():
        net = torchvision.models.get_model(name, weights=None, **arguments)
    return materialise(net)


def test_there_are_80_models_in_17_families():
    assert len(MODELS) >= 80
    assert {id(find_family(name)) for name in MODELS} == {id(family) for family in FAMILIES.values()}
    assert {id(find_family(name)) for name in SMALLEST} == {id(family) for family in FAMILIES.values()}


@pytest.mark.parametrize("name", exhaustive_unless(SMALLEST, MODELS))
def test_contract(name):
    backbone = on_meta(name)
    assert backbone.pretrained is False
    assert backbone.training
    assert isinstance(backbone.preprocess, ImagePreprocess)
    size = backbone.preprocess.image_size
    meta = {key: tensor.to("meta") for key, tensor in backbone.eval().state_dict().items()}
    images = torch.empty(2, 3, size, size, dtype=torch.uint8, device="meta")
    features = torch.func.functional_call(backbone, meta, images)
    assert features.shape == (2, backbone.num_features)

    groups = backbone.layer_groups()
    check_layer_groups(groups, backbone)
    modules = [name for group in groups for name in group.modules]
    assert modules == [name for name, _ in backbone.named_modules()]


@pytest.mark.parametrize("name", SMALLEST)
def test_blocks_run_in_order_on_one_tensor_each_and_leave_it_alone(name):
    backbone = materialise(on_meta(name, image_size=SMALLEST[name]))
    seen, inputs = [], []

    def note(block):
        def hook(module, arguments):
            (tensor,) = arguments  # one tensor or the boundary is no clean cut
            seen.append(block)
            inputs.append((tensor, tensor.clone()))

        return hook

    for block in backbone.blocks:
        backbone.get_submodule(block).register_forward_pre_hook(note(block))
    size = SMALLEST[name]
    with torch.no_grad():
        features = backbone(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8))
    assert features.shape == (2, backbone.num_features)
    assert seen == backbone.blocks
    assert all(torch.equal(now, before) for now, before in inputs), "a cached activation would be overwritten"


@pytest.mark.parametrize("name", exhaustive_unless(FEW, [name for name in SMALLEST if name != "squeezenet1_1"]))
def test_features_and_last_layer_give_torchvisions_logits(name, tmp_path):
    size = SMALLEST[name]
    net = reference(name, size)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    backbone = TorchvisionBackbone(name, str(tmp_path / "net.pth"), image_size=size).eval()
    assert backbone.pretrained
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    with torch.no_grad():
        expected = net(transforms.normalize(images / 255, preset.mean, preset.std))
        features = backbone(images)
        last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
        logits = last(features)
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


def test_squeezenet_features_are_the_pooled_map(tmp_path):
    net = reference("squeezenet1_1")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    backbone = TorchvisionBackbone("squeezenet1_1", str(tmp_path / "net.pth")).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = net.features(backbone.normalise(images)).mean((2, 3))
        torch.testing.assert_close(backbone(images), expected)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "inception_v3"])
def test_preprocessing_is_torchvisions(name):
    """The whole way from a picture, up to rounding to uint8 (torchvision normalises ImageNet's way for Inception)."""
    noise = torch.rand(3, 12, 16).mul(255).to(torch.uint8)
    picture = transforms.resize(noise, [300, 400])
    backbone = on_meta(name)
    ours = backbone.normalise(backbone.preprocess(picture)[None])[0]
    entry = backbone_entry(name)
    theirs = entry.transforms()(Image.fromarray(picture.permute(1, 2, 0).numpy()))
    assert ours.shape == theirs.shape
    off = (ours - theirs).abs()
    assert off.max() < 0.06, "more than three levels of 255"
    assert off.mean() < 0.006, "a third of a level on average"


def backbone_entry(name):
    return torchvision.models.get_model_weights(name).IMAGENET1K_V1


ENTRIES = [(name, entry.name) for name in MODELS for entry in torchvision.models.get_model_weights(name)]


def test_there_are_115_entries():
    assert len(ENTRIES) >= 115


@pytest.mark.parametrize(
    ("name", "entry"), exhaustive_unless([entry for entry in ENTRIES if entry[0] in SMALLEST], ENTRIES)
)
def test_preset_is_the_entrys(name, entry, monkeypatch):
    weights = torchvision.models.get_model_weights(name)[entry]
    loaded = []
    monkeypatch.setattr("headstart.backbones.torchvision.fetch", lambda url: url)
    monkeypatch.setattr("headstart.backbones.torchvision.load_state_dict_file", lambda url: loaded.append(url) or {})
    monkeypatch.setattr(TorchvisionBackbone, "_load", lambda *_, **__: None)
    monkeypatch.setattr("headstart.backbones.torchvision.count_features", lambda *_: 1)
    categories = weights.meta["categories"]
    backbone = TorchvisionBackbone(name, entry, output="penultimate" if categories else "pooled")
    preset = weights.transforms()
    assert loaded == [weights.url]
    assert [backbone.preprocess.image_size] == preset.crop_size
    assert [backbone.preprocess.resize_size] == preset.resize_size
    assert backbone.preprocess.interpolation == preset.interpolation.value
    inception = name in ("inception_v3", "googlenet")
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor([0.5] * 3 if inception else preset.mean))
    torch.testing.assert_close(backbone.std.flatten(), torch.tensor([0.5] * 3 if inception else preset.std))


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        ("vgg16", "penultimate", 4096),
        ("vgg16", "pooled", 512),
        ("vgg16", "flattened", 512 * 7 * 7),
        ("alexnet", "flattened", 256 * 6 * 6),
        ("resnet50", "flattened", 2048 * 7 * 7),
        ("resnet50", "pooled", 2048),
        ("mobilenet_v3_large", "penultimate", 1280),
        ("mobilenet_v3_large", "pooled", 960),
        ("densenet121", "flattened", 1024 * 7 * 7),
        ("shufflenet_v2_x1_0", "flattened", 1024 * 7 * 7),
        ("squeezenet1_1", "pooled", 512),
        ("inception_v3", "flattened", 2048 * 8 * 8),
        ("maxvit_t", "pooled", 512),
        ("convnext_tiny", "pooled", 768),
    ],
)
def test_output_sizes(name, output, expected):
    assert on_meta(name, output=output).num_features == expected


def test_vgg_keeps_its_grid_at_any_size():
    assert on_meta("vgg16", output="flattened", image_size=320).num_features == 25088


@pytest.mark.parametrize(
    "name",
    ["alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2"]
    + ["mobilenet_v3_small", "regnet_x_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t"],
)
def test_pooled_is_the_mean_of_flattened(name):
    size = 224 if name == "alexnet" else SMALLEST[name]  # where AlexNet's grid is the map itself
    pooled, flat = (materialise(on_meta(name, image_size=size, output=o)) for o in ("pooled", "flattened"))
    flat.load_state_dict(pooled.state_dict())
    images = torch.rand(1, 3, size, size)
    with torch.no_grad():
        vector, flattened = pooled(images)[0], flat(images)
    torch.testing.assert_close(flattened.view(len(vector), -1).mean(1), vector, rtol=1e-3, atol=1e-5)


def test_what_is_cut_is_gone():
    vgg = {
        output: sum(p.numel() for p in on_meta("vgg16", output=output).parameters())
        for output in ("penultimate", "pooled")
    }
    assert vgg["pooled"] == 14_714_688
    assert vgg["penultimate"] == 138_357_544 - 4_097_000
    assert not [name for name, _ in on_meta("inception_v3").named_modules() if "Aux" in name]


@pytest.mark.parametrize(("name", "size"), [("swin_t", 192), ("swin_v2_t", 320), ("maxvit_t", 448), ("vit_b_16", 96)])
def test_transformers_at_other_sizes(name, size):
    backbone = on_meta(name, image_size=size)
    assert backbone.preprocess.image_size == size
    assert backbone.num_features in (512, 768)


def test_image_size_scales_the_resize():
    assert _preprocess(backbone_entry("resnet50"), 112, "crop") == ImagePreprocess(112, 128)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5"}, "no classifier 'resnet5', did you mean 'resnet50'.*model.name="),
        ({"name": "resnet18", "weights": "IMAGENET1K_V2"}, "did you mean 'IMAGENET1K_V1'.*DEFAULT.*null"),
        ({"name": "vit_b_16", "weights": None, "output": "flattened"}, "no output 'flattened'.*one of penultimate>"),
        ({"name": "resnet18", "weights": None, "output": "pool"}, "did you mean 'pooled'"),
        ({"name": "vgg16", "weights": "IMAGENET1K_FEATURES"}, "no values for the classifier.*output=pooled"),
        ({"name": "vit_b_16", "weights": None, "image_size": 100}, "image_size=100 does not work with vit_b_16"),
        ({"name": "maxvit_t", "weights": None, "image_size": 200}, "image_size=200 does not work with maxvit_t"),
        ({"name": "vgg16", "weights": None, "image_size": 8}, "image_size=8 does not work with vgg16"),
        ({"name": "resnet18", "weights": None, "image_size": 0}, "image_size=0"),
        ({"name": "resnet18", "weights": None, "image_size": "large"}, "image_size='large'"),
        ({"name": "resnet18", "weights": None, "resize_mode": "stretch"}, "resize_mode='stretch'"),
    ],
)
def test_mistakes_are_told_without_building_or_downloading(arguments, message, monkeypatch):
    monkeypatch.setattr("headstart.backbones.torchvision.fetch", lambda url: pytest.fail("downloads"))
    with parameters_on_meta(), pytest.raises(UsageError, match=message):
        TorchvisionBackbone(**arguments)


def test_entry_may_be_spelt_as_torchvision_does():
    assert _find_weights("resnet50", "ResNet50_Weights.IMAGENET1K_V2").name == "IMAGENET1K_V2"


def test_parameters_on_meta_ends():
    with parameters_on_meta():
        assert nn.Linear(2, 2).weight.is_meta
    assert not nn.Linear(2, 2).weight.is_meta


@pytest.mark.parametrize("yaml", YAMLS)
def test_yaml_builds_its_model(yaml):
    overrides = [f"+model={yaml}"] + (["model.name=regnet_y_400mf"] if yaml == "torchvision" else [])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose(overrides=overrides).model
    assert node.name == ("regnet_y_400mf" if yaml == "torchvision" else yaml)
    assert _find_weights(node.name, node.weights) == torchvision.models.get_model_weights(node.name).DEFAULT
    with parameters_on_meta(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert instantiate(node, weights=None).num_features > 0


def test_there_are_yamls():
    assert len(YAMLS) >= 30
