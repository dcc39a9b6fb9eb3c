"""Weights come from files, earlier runs and the web; nothing is skipped in silence."""

import os
import threading
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from headstart.backbones.torchvision import TorchvisionBackbone
from headstart.backbones.weights import fetch, load_backbone_weights, load_state_dict_file, load_strictly
from headstart.errors import UsageError

NAME = "squeezenet1_1"  # five megabytes


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    return torchvision.models.get_model(NAME, weights=None)


@pytest.fixture
def state(network):
    return {key: tensor.clone() for key, tensor in network.state_dict().items()}


def same(backbone: TorchvisionBackbone, state: dict) -> bool:
    return all(torch.equal(tensor, state[key]) for key, tensor in backbone.net.state_dict().items())


def named(prefix, state):
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {"model_state_dict": s, "optimizer_state_dict": {}},
        lambda s: {"state_dict": named("model.", s)},
        lambda s: named("module._orig_mod.", s),
        lambda s: named("backbone.", s),
    ],
)
def test_state_dict_files(wrap, state, tmp_path):
    torch.save(wrap(state), tmp_path / "a.pth")
    backbone = TorchvisionBackbone(NAME, str(tmp_path / "a.pth"))
    assert same(backbone, state)
    assert backbone.pretrained
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in backbone.parameters())


def test_a_checkpoint_of_another_lightning_module(state, tmp_path):
    content = {"state_dict": named("model.", state), "hyper_parameters": {"lr": 0.1}, "pytorch-lightning_version": "2"}
    torch.save(content, tmp_path / "a.ckpt")
    assert same(TorchvisionBackbone(NAME, str(tmp_path / "a.ckpt")), state)


def test_safetensors_and_data_parallel_names(state, tmp_path):
    safetensors.torch.save_file({f"module.{key}": tensor for key, tensor in state.items()}, tmp_path / "a.safetensors")
    assert same(TorchvisionBackbone(NAME, str(tmp_path / "a.safetensors")), state)


def test_half_precision_file_gives_full_precision_parameters(state, tmp_path):
    torch.save({key: tensor.half() for key, tensor in state.items()}, tmp_path / "a.pth")
    backbone = TorchvisionBackbone(NAME, str(tmp_path / "a.pth"))
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


def test_classifier_may_be_missing_or_of_other_classes(state, tmp_path):
    without = {key: tensor for key, tensor in state.items() if not key.startswith("classifier")}
    torch.save(without, tmp_path / "without.pth")
    assert same(TorchvisionBackbone(NAME, str(tmp_path / "without.pth")), state)
    torch.save(without | {"classifier.1.weight": torch.zeros(7, 512, 1, 1)}, tmp_path / "other.pth")
    assert same(TorchvisionBackbone(NAME, str(tmp_path / "other.pth")), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.0.bias"), r"missing \(1\):\n    features\.0\.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), r"unexpected \(1\):\n    extra"),
        (lambda s: s.update({"features.0.weight": torch.zeros(64, 3, 5, 5)}), "size mismatch for features.0.weight"),
        (
            lambda s: s["features.0.bias"].fill_(float("nan")),
            r"not finite:\n  NaN or infinite \(1\):\n    features.0.b",
        ),
        (lambda s: [s.pop(key) for key in list(s) if "expand" in key], r"missing \(32\)(.|\n)*and 22 more"),
    ],
)
def test_what_does_not_fit_is_told(change, message, state, tmp_path):
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=message):
        TorchvisionBackbone(NAME, str(tmp_path / "a.pth"))


HUGE = (10**6, 10**6)
"""The shape of a tensor that would have terabytes."""


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(1, dtype=torch.half).expand(HUGE),
        torch.sparse_coo_tensor([[0], [0]], [1.0], HUGE),
        torch.empty(HUGE, device="meta"),
    ],
    ids=["one value", "sparse", "no values"],
)
@pytest.mark.parametrize("name", ["features.0.bias", "classifier.1.weight", "extra\x1b[2J"])
def test_a_tensor_that_is_not_whole_in_the_file_is_refused_before_it_fills_the_memory(name, tensor, state, tmp_path):
    torch.save(state | {name: tensor}, tmp_path / "a.pth")
    with pytest.raises(UsageError, match="is sparse, or its values are not all in the file") as told:
        TorchvisionBackbone(NAME, str(tmp_path / "a.pth"))
    assert "\x1b" not in str(told.value)


def test_a_tensor_of_another_shape_is_not_converted(network):
    """Its conversion would take 2 TB."""
    state = network.state_dict() | {"features.0.bias": torch.ones(1, dtype=torch.half).expand(HUGE)}
    with pytest.raises(UsageError, match=r"size mismatch for features\.0\.bias"):
        load_strictly(network, state, "a file")


def test_another_architecture_is_told_from_both_sides(state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"missing \((.|\n)*conv1\.weight(.|\n)*unexpected \((.|\n)*features\.0\.bias"):
        TorchvisionBackbone("resnet18", str(tmp_path / "a.pth"))


def test_damaged_files(state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    for name, content in {
        "cut.pth": whole[: len(whole) // 2],
        "empty.pth": b"",
        "page.pth": b"<html>not found</html>",
        "cut.safetensors": (tmp_path / "a.safetensors").read_bytes()[:-100],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"cannot read '.*{name}'"):
            TorchvisionBackbone(NAME, str(tmp_path / name))


def test_what_is_no_state_dict(network, tmp_path):
    torch.save(network, tmp_path / "module.pth")
    with pytest.raises(UsageError, match=r"holds more than tensors.*state_dict"):
        TorchvisionBackbone(NAME, str(tmp_path / "module.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UsageError, match="is no state dict"):
        load_state_dict_file(tmp_path / "list.pth")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file '.*nothing.pth'"):
        TorchvisionBackbone(NAME, str(tmp_path / "nothing.pth"))
    with pytest.raises(UsageError, match=r"holds no checkpoints/best\.ckpt"):
        TorchvisionBackbone(NAME, str(tmp_path))


def run_of(backbone: nn.Module, folder: Path) -> Path:
    """A folder as a run leaves it."""
    (folder / "checkpoints").mkdir(parents=True)
    state = {f"backbone.{key}": tensor for key, tensor in backbone.state_dict().items()}
    state["head.weight"] = torch.zeros(3, 512)
    torch.save({"state_dict": state, "epoch": 4}, folder / "checkpoints" / "best.ckpt")
    return folder


def test_chained_transfer_from_a_run_and_from_its_checkpoint(tmp_path):
    first = TorchvisionBackbone(NAME, None)
    first.mean.fill_(0.25)
    run = run_of(first, tmp_path / "run")
    for source in (run, run / "checkpoints" / "best.ckpt"):
        second = TorchvisionBackbone(NAME, str(source))
        assert second.pretrained
        assert all(torch.equal(tensor, second.state_dict()[key]) for key, tensor in first.state_dict().items())
        assert second.mean.flatten().tolist() == [0.25] * 3


@pytest.mark.parametrize("name", ["mnasnet0_5", "googlenet"])  # one wants to know its version, one its normalisation
def test_chained_transfer_of_odd_networks(name, tmp_path):
    first = TorchvisionBackbone(name, None).eval()
    second = TorchvisionBackbone(name, str(run_of(first, tmp_path / "run"))).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(second(images), first(images))


def test_chained_transfer_to_less_output_and_not_to_more(tmp_path):
    first = TorchvisionBackbone("mobilenet_v3_small", None)
    run = run_of(first, tmp_path / "more")
    pooled = TorchvisionBackbone("mobilenet_v3_small", str(run), output="pooled")
    assert pooled.num_features == 576
    run = run_of(pooled, tmp_path / "less")
    with pytest.raises(UsageError, match=r"missing \(2\):\n    classifier\.0\.bias(.|\n)*model\.output"):
        TorchvisionBackbone("mobilenet_v3_small", str(run))


def test_checkpoint_of_something_else(tmp_path):
    torch.save({"state_dict": {"model.weight": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(UsageError, match="do not fit this network"):
        TorchvisionBackbone(NAME, str(tmp_path / "other.ckpt"))


def test_whole_backbone_file(tmp_path):
    first, second = TorchvisionBackbone(NAME, None), TorchvisionBackbone(NAME, None)
    contiguous = {key: tensor.contiguous() for key, tensor in first.state_dict().items()}
    safetensors.torch.save_file(contiguous, tmp_path / "a.safetensors")
    load_backbone_weights(second, tmp_path / "a.safetensors")
    assert second.pretrained
    assert all(torch.equal(tensor, second.state_dict()[key]) for key, tensor in first.state_dict().items())


def test_vit_positions_follow_the_image_size(tmp_path):
    small = torchvision.models.vit_b_32(weights=None, image_size=96)
    state = {key: tensor for key, tensor in small.state_dict().items() if not key.startswith("heads")}
    torch.save(state, tmp_path / "vit.pth")
    own = TorchvisionBackbone("vit_b_32", str(tmp_path / "vit.pth"))
    assert own.preprocess.image_size == 96
    assert torch.equal(own.net.encoder.pos_embedding, small.encoder.pos_embedding)
    larger = TorchvisionBackbone("vit_b_32", str(tmp_path / "vit.pth"), image_size=160)
    assert larger.net.encoder.pos_embedding.shape == (1, 26, 768)
    assert torch.equal(larger.net.encoder.pos_embedding[:, 0], small.encoder.pos_embedding[:, 0])
    with torch.no_grad():
        assert larger.eval()(torch.rand(1, 3, 160, 160)).shape == (1, 768)


def test_old_densenet_names(tmp_path):
    net = torchvision.models.densenet121(weights=None)
    old = {}
    for key, tensor in net.state_dict().items():
        for layer in ("norm", "conv"):
            for i in (1, 2):
                key = key.replace(f".{layer}{i}.", f".{layer}.{i}.") if "denselayer" in key else key
        if not key.endswith("num_batches_tracked"):
            old[key] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "a.pth")
    assert same(TorchvisionBackbone("densenet121", str(tmp_path / "a.pth")), net.state_dict())


def test_file_named_as_published_has_its_preset(state, tmp_path):
    entry = torchvision.models.RegNet_Y_16GF_Weights.IMAGENET1K_SWAG_E2E_V1
    from headstart.backbones.torchvision import _preset_entry

    assert _preset_entry("regnet_y_16gf", tmp_path / Path(entry.url).name) is entry
    assert _preset_entry("regnet_y_16gf", tmp_path / "mine.pth").name == "IMAGENET1K_V1"
    assert _preset_entry("vit_h_14", None).name == "IMAGENET1K_SWAG_E2E_V1"


def test_load_strictly_copies_into_real_parameters():
    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    weight = net.weight
    load_strictly(net, other.state_dict(), "other")
    assert net.weight is weight
    assert torch.equal(weight, other.weight)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(state, tmp_path, monkeypatch):
    """A web server with weights under a name that holds their hash, and an empty torch cache."""
    served = tmp_path / "served"
    served.mkdir()
    torch.save(state, served / "raw.pth")
    content = (served / "raw.pth").read_bytes()
    good = f"net-{sha256(content).hexdigest()[:8]}.pth"
    (served / good).write_bytes(content)
    (served / "net-00000000.pth").write_bytes(content)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}", good
    web.shutdown()
    web.server_close()


def test_download_once_into_torchs_cache(server, state, tmp_path, monkeypatch):
    root, good = server
    entry = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    monkeypatch.setattr(entry.value, "url", f"{root}/{good}")
    assert same(TorchvisionBackbone(NAME), state)
    assert (tmp_path / "cache" / "checkpoints" / good).is_file()
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: pytest.fail("downloads again"))
    assert same(TorchvisionBackbone(NAME, "IMAGENET1K_V1"), state)


def test_wrong_hash_and_missing_page(server, tmp_path):
    root, _ = server
    with pytest.raises(UsageError, match=r"cannot download .*invalid hash(.|\n)*model\.weights=null"):
        fetch(f"{root}/net-00000000.pth")
    assert not list((tmp_path / "cache" / "checkpoints").iterdir())
    with pytest.raises(UsageError, match="404"):
        fetch(f"{root}/nothing-12345678.pth")


def test_no_network_says_what_to_do(tmp_path, monkeypatch):
    def offline(*_):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UsageError) as told:
        TorchvisionBackbone("resnet50")
    url = torchvision.models.ResNet50_Weights.DEFAULT.url
    for part in (url, Path(url).name, str(tmp_path / "checkpoints"), "model.weights=<path", "model.weights=null"):
        assert part in str(told.value)


@pytest.mark.real
@pytest.mark.skipif("HEADSTART_REAL" not in os.environ, reason="HEADSTART_REAL names no folder")
def test_real_mobilenet_loads_strictly():
    path = Path(os.environ["HEADSTART_REAL"]) / "weights" / "mobilenet_v2_imagenet.pth"
    backbone = TorchvisionBackbone("mobilenet_v2", str(path)).eval()
    file = load_state_dict_file(path)
    assert same(backbone, file)
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    net = torchvision.models.mobilenet_v2(weights=None).eval()
    net.load_state_dict(file)
    preset = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    mean, std = torch.tensor(preset.mean).view(3, 1, 1), torch.tensor(preset.std).view(3, 1, 1)
    with torch.no_grad():
        expected = net((images / 255 - mean) / std)
        torch.testing.assert_close(net.classifier(backbone(images)), expected, rtol=1e-3, atol=1e-3)
