"""Equal fingerprints mean equal activations: whatever may change one changes the other, or has none."""

import copy
import importlib.util
import sys
from functools import partial

import pytest
import torch
from PIL import features
from torch import fx, nn
from torchvision.transforms import v2

from headstart.backbones.parts import in_two_parts
from headstart.backbones.tiny_resnet import TinyResNet
from headstart.backbones.torchvision import TorchvisionBackbone
from headstart.caching import fingerprint as of_code
from headstart.caching.fingerprint import NoFingerprintError, of_prefix, of_samples
from headstart.data.samples import Samples
from headstart.inputs.images.decode import read_picture
from headstart.inputs.images.files import PictureFiles, PictureStack
from headstart.inputs.images.preprocess import ImagePreprocess

PICTURES = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2)
SAMPLES = Samples(list("abcd"), [0, 1, 0, 1], ["x", "y"], PictureStack(PICTURES))
PREPROCESS = ImagePreprocess(16, 20)


def fingerprint(prefix, transform=PREPROCESS, samples=SAMPLES, device="cpu"):
    return of_prefix(prefix, transform, samples, torch.device(device))


class Cropped(PictureFiles):
    def __init__(self, paths, side):
        super().__init__(paths)
        self.side = side


@pytest.fixture
def tiny():
    return TinyResNet()


def test_the_same_again_is_the_same(tiny):
    assert fingerprint(tiny) == fingerprint(TinyResNet().train()) == fingerprint(copy.deepcopy(tiny).eval())
    parts = [in_two_parts(TinyResNet(), 2)[0] for _ in range(2)]
    assert fingerprint(parts[0]) == fingerprint(parts[1]) != fingerprint(tiny)
    frozen = TinyResNet().requires_grad_(False).to(memory_format=torch.contiguous_format)
    assert fingerprint(frozen) == fingerprint(tiny), "neither freezing nor the memory format changes what it computes"


def test_every_tensor_counts(tiny):
    seen = {fingerprint(tiny)}
    state = tiny.state_dict()
    names = [name for name in state if "num_batches" not in name]
    for name in names:
        number = state[name][(0,) * state[name].ndim]
        before = number.clone()
        number.copy_(torch.nextafter(before, torch.tensor(torch.inf)))
        seen.add(fingerprint(tiny))
        number.copy_(before)
    assert len(seen) == len(names) + 1


def test_settings_that_no_repr_shows_count():
    one, other = (nn.Sequential(nn.Conv2d(3, 3, 1)) for _ in range(2))
    other.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(other)
    other[0].secret = 3
    assert repr(one) == repr(other)
    assert fingerprint(one) != fingerprint(other)


def test_number_format_and_device_count(tiny):
    assert len({fingerprint(tiny), fingerprint(tiny.double()), fingerprint(tiny, device="cuda")}) == 3


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has one setting for all")
@pytest.mark.parametrize("place", ["cuda.matmul", "cudnn.conv", "mkldnn.conv", "mkldnn.matmul"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_precision_of_an_operation_counts(place, device, tiny):
    before = fingerprint(tiny, device=device)
    backend, operation = place.split(".")
    operation = getattr(getattr(torch.backends, backend), operation)
    kept = operation.fp32_precision
    operation.fp32_precision = "ieee" if kept == "tf32" else "tf32"
    try:
        assert fingerprint(tiny, device=device) != before
    finally:
        operation.fp32_precision = kept
    assert fingerprint(tiny, device=device) == before


@pytest.mark.parametrize("setting", ["image_size", "resize_size", "interpolation", "resize_mode"])
def test_every_setting_of_the_transform_counts(setting, tiny):
    other = {"image_size": 17, "resize_size": 21, "interpolation": "bicubic", "resize_mode": "squash"}[setting]
    changed = ImagePreprocess(**(vars(PREPROCESS) | {setting: other}))
    assert fingerprint(tiny, changed) != fingerprint(tiny)


def test_transforms_of_torchvision_and_partials(tiny):
    def made(size, mean):
        return v2.Compose([v2.Resize(size), partial(v2.functional.normalize, mean=[mean], std=[1.0])])

    assert fingerprint(tiny, made(16, 0.5)) == fingerprint(tiny, made(16, 0.5))
    assert len({fingerprint(tiny, made(*how)) for how in ((16, 0.5), (17, 0.5), (16, 0.6))}) == 3


@pytest.mark.parametrize("transform", [lambda x: x, PREPROCESS.__call__, iter([1]), torch.Generator()])
def test_what_cannot_be_told_has_no_fingerprint(transform, tiny):
    with pytest.raises(NoFingerprintError, match=r"."):
        fingerprint(tiny, transform)


def test_what_decodes_files_counts(tiny):
    def of(load):
        return Samples(["a"], [0], ["x", "y"], load, digests=["1" * 40])

    files = [fingerprint(tiny, samples=of(PictureFiles([name]))) for name in "ab"]
    assert files[0] == files[1] != fingerprint(tiny) != fingerprint(tiny, samples=of(read_picture)) != files[0]
    crops = [fingerprint(tiny, samples=of(Cropped(["a"], side))) for side in (8, 8, 9)]
    assert files[0] != crops[0] == crops[1] != crops[2], "settings of a loader of one's own"
    for load in (lambda index: PICTURES[index], PICTURES.__getitem__):
        with pytest.raises(NoFingerprintError):
            fingerprint(tiny, samples=of(load))
        assert fingerprint(tiny, samples=Samples(["a"], [0], ["x", "y"], load)) == fingerprint(tiny)


@pytest.mark.parametrize("codec", ["jpg", "libjpeg_turbo", "webp"])
def test_the_version_of_a_codec_counts(codec, tiny, monkeypatch):
    files = Samples(["a"], [0], ["x", "y"], PictureFiles(["a"]), digests=["1" * 40])
    before, version = fingerprint(tiny, samples=files), features.version
    monkeypatch.setattr(features, "version", lambda name: "0" if name == codec else version(name))
    assert fingerprint(tiny, samples=files) != before


@pytest.mark.parametrize("module", ["backbones.base", "backbones.parts", "inputs.images.decode"])
def test_the_code_between_file_and_row_counts(module, tiny, monkeypatch):
    files = Samples(["a"], [0], ["x", "y"], PictureFiles(["a"]), digests=["1" * 40])
    before, code = fingerprint(tiny, samples=files), of_code._code
    monkeypatch.setattr(of_code, "_code", lambda name: (*code(name), *[b"#"][: name == f"headstart.{module}"]))
    assert fingerprint(tiny, samples=files) != before


def test_a_hook_has_no_fingerprint(tiny):
    tiny.stage1.register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(NoFingerprintError, match="a hook on _Residual"):
        fingerprint(tiny)


OWN = """
from torch import nn
import {ops}
from {ops} import twice, Scale

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

class Itself(Net):
    def forward(self, x):
        return self.block(self.stem(x) * 3)

class ByName(Net):
    def forward(self, x):
        return self.block(twice(self.stem(x)))

class ByModule(Net):
    def forward(self, x):
        return self.block({ops}.twice(self.stem(x)))

class ByClass(Net):
    def forward(self, x):
        return self.block(Scale()(self.stem(x)))

class InnerFunction(Net):
    def forward(self, x):
        return self.block((lambda y: self.again(y))(self.stem(x)))

    def again(self, x):
        return [twice(y) for y in [x]][0]
"""
OPS = """
import {deep}

def twice(x):
    return {deep}.of(x, 2)

class Scale:
    def __call__(self, x):
        return twice(x)
"""
DEEP = """
def of(x, factor):
    return x * factor
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Imports code of one's own, of up to three files of which a test changes one, anew."""
    monkeypatch.syspath_prepend(tmp_path)
    names = {"ops": "own_ops", "deep": "own_deep"}
    texts = {"own_net": OWN.format(**names), "own_ops": OPS.format(**names), "own_deep": DEEP}

    def write(changed=""):
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text + "CHANGED = True\n" * (name == changed))
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        of_code._code.cache_clear()
        return importlib.import_module("own_net")

    yield write
    for name in texts:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("changed", ["own_net", "own_ops", "own_deep"])
@pytest.mark.parametrize("kind", ["Itself", "ByName", "ByModule", "ByClass", "InnerFunction"])
def test_code_of_ones_own_counts(kind, changed, written):
    def made(module):
        torch.manual_seed(0)
        return fingerprint(getattr(module, kind)())

    before, again, after = made(written()), made(written()), made(written(changed))
    assert before == again
    assert (before != after) == (kind != "Itself" or changed == "own_net"), "what is not used does not count"


def test_words_about_the_code_do_not_count():
    plain = "class A:\n    x = 1\n\n    def f(self):\n        return 'text'\n"
    told = '"""Words."""\n' + plain.replace("    x = 1", '    """More."""\n\n    x = 1  # why').replace(
        "        return", '        """Again."""\n        return'
    )
    assert of_code._without_words(plain) == of_code._without_words(told)
    assert of_code._without_words(plain) != of_code._without_words(plain.replace("text", "other"))


@pytest.mark.parametrize("changed", ["own_ops", "own_deep"])
def test_code_of_functions_in_a_cut_prefix_counts(changed, written):
    def made(module):
        graph = fx.Graph()
        graph.output(graph.call_function(module.twice, (graph.placeholder("x"),)))
        return fingerprint(fx.GraphModule(nn.Module(), graph))

    assert made(written()) == made(written()) != made(written(changed))


def test_a_class_that_cannot_be_imported_has_no_fingerprint(tiny, tmp_path):
    (tmp_path / "gone.py").write_text("class Transform:\n    pass\n")
    spec = importlib.util.spec_from_file_location("gone", tmp_path / "gone.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(NoFingerprintError, match=r"gone\.Transform"):
        fingerprint(tiny, module.Transform())


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vit_b_32"])
def test_networks_of_torchvision_have_one(name):
    net = TorchvisionBackbone(name, weights=None, image_size=64)
    assert fingerprint(net) == fingerprint(copy.deepcopy(net))
    assert fingerprint(in_two_parts(net, 2)[0]) != fingerprint(net)


def test_a_sample_is_its_pixels_or_the_digest_of_its_file():
    changed = PICTURES.clone()
    changed[2, 1, 1, 0] += 1
    flat = Samples(list("abcd"), [1] * 4, ["x", "y"], PictureStack(PICTURES.reshape(4, 3, 4, 1)))
    before, after = (of_samples(s, [3, 2, 0]) for s in (SAMPLES, Samples(*vars(SAMPLES).values())))
    assert before == after
    after = of_samples(Samples(list("efgh"), [1] * 4, ["x", "y"], PictureStack(changed)), [3, 2, 0])
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert not set(of_samples(flat, [0, 1])) & set(of_samples(SAMPLES, [0, 1])), "the shape counts"
    known = Samples(list("abcd"), [1] * 4, ["x", "y"], None, digests=["1" * 40, "2" * 40, "3" * 40, "4" * 40])
    assert of_samples(known, [2, 0]) == ["3" * 40, "1" * 40]
