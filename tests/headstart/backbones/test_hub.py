"""Files of models on a hub, which is a server on this machine."""

import pytest
import tiny_text
import torch
from safetensors.torch import save_file
from stand_in_hub import serving

from headstart.backbones.hub import ModelFiles
from headstart.backbones.text_encoder import TextEncoder
from headstart.backbones.tiny_resnet import TinyResNet
from headstart.backbones.torchvision import TorchvisionBackbone
from headstart.errors import UsageError

constants = pytest.importorskip("huggingface_hub.constants")
NAME = "some/encoder"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model of texts."""
    tiny_text.write_model(tmp_path / "on_the_hub" / NAME)
    with serving(tmp_path / "on_the_hub", monkeypatch) as found:
        yield found


def test_files_are_downloaded_once(hub):
    first = TextEncoder(NAME, weights=None)
    requests = len(hub.asked)
    assert TextEncoder(NAME, weights=None).preprocess == first.preprocess
    assert ("GET", f"/{NAME}/resolve/main/tokenizer.json") in hub.asked
    assert len(hub.asked) == requests, "the second time nothing is asked for"


def test_a_model_without_weights_is_told(hub):
    with pytest.raises(UsageError, match=r"some/encoder has no model.safetensors on the Hugging Face hub"):
        TextEncoder(NAME)


def test_a_model_that_does_not_exist_is_told(hub):
    with pytest.raises(UsageError, match=r"model.name=other/encoder: the Hugging Face hub has no such model"):
        TextEncoder("other/encoder")


def test_without_a_network_the_message_says_what_to_download_and_where_to(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    with pytest.raises(UsageError) as raised:
        ModelFiles(NAME).config()
    message = str(raised.value)
    assert "cannot download config.json of some/encoder from http://127.0.0.1:9" in message
    assert f"hf download {NAME}, which keeps it in {tmp_path / 'hub_cache'}" in message
    assert "model.name=<a folder with config.json, tokenizer.json and model.safetensors>" in message


@pytest.mark.parametrize(("address", "file"), [
    ("hf://me/net", "model.safetensors"),
    ("hf://me/net", "checkpoints/best.ckpt"),
    ("hf://me/net/old/weights.pth", "old/weights.pth"),
])  # fmt: skip
def test_weights_come_from_an_address(address, file, hub):
    state = TinyResNet().state_dict()
    target = hub.root / "me/net" / file
    target.parent.mkdir(parents=True)
    if file.endswith(".safetensors"):
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, target)
    else:
        torch.save({"state_dict": {f"backbone.{name}": tensor for name, tensor in state.items()}}, target)
    found = TinyResNet(weights=address).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    requests = len(hub.asked)
    TinyResNet(weights=address)
    assert not [each for each in hub.asked[requests:] if each[0] == "GET"], "the file is kept"


def test_weights_that_were_pushed_later_are_found(hub, monkeypatch, caplog):
    (hub.root / "me/net").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"has no checkpoints/best\.ckpt"):
        TinyResNet(weights="hf://me/net")
    state = TinyResNet().state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, hub.root / "me/net/model.safetensors")
    TinyResNet(weights="hf://me/net")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    found = TinyResNet(weights="hf://me/net").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert "http://127.0.0.1:9 cannot be reached: model.safetensors of me/net is the copy from before" in caplog.text


def test_torchvision_takes_an_address_too(hub):
    state = TorchvisionBackbone("squeezenet1_1", weights=None).net.state_dict()
    (hub.root / "me/net").mkdir(parents=True)
    torch.save(state, hub.root / "me/net/pytorch_model.bin")
    found = TorchvisionBackbone("squeezenet1_1", weights="hf://me/net").net.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_nothing_in_a_downloaded_file_is_executed(hub, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    (hub.root / "me/net/checkpoints").mkdir(parents=True)
    torch.save({"state_dict": Evil()}, hub.root / "me/net/checkpoints/best.ckpt")
    with pytest.raises(UsageError, match=r"cannot read '.*best.ckpt'"):
        TinyResNet(weights="hf://me/net")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(("address", "message"), [
    ("hf://net", "give hf://<owner>/<name>, or hf://<owner>/<name>/<file>"),
    ("hf://me/net/model.onnx", "with a file that ends in .pth"),
    ("hf://some/encoder/absent.pth", "some/encoder on the Hugging Face hub has no absent.pth"),
    ("hf://some/encoder", "has no checkpoints/best.ckpt or model.safetensors or pytorch_model.bin"),
    ("hf://me/absent", "the Hugging Face hub has no me/absent"),
])  # fmt: skip
def test_an_address_without_weights_is_refused(address, message, hub):
    with pytest.raises(UsageError, match=message):
        TinyResNet(weights=address)
