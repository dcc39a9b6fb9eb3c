"""A backbone in two parts computes what it computes in one; a fast copy computes nearly that."""

import copy
from dataclasses import dataclass

import pytest
import torch
import torchvision
from families import FEW, SMALLEST, exhaustive_unless, with_random_values
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from headstart.backbones.base import Backbone
from headstart.backbones.meta import parameters_on_meta
from headstart.backbones.parts import InferenceCopy, NoCleanCutError, in_parts, in_two_parts
from headstart.backbones.tiny_resnet import TinyResNet
from headstart.backbones.torchvision import TorchvisionBackbone
from headstart.inputs.images.preprocess import ImagePreprocess

MODELS = torchvision.models.list_models(module=torchvision.models)
RUN = {"tiny_resnet": 16, **SMALLEST}
VARIANTS = [
    (name, output)
    for name in ("densenet121", "mobilenet_v2", "resnet18", "squeezenet1_1", "vgg11_bn")
    for output in ("pooled", "flattened")
]
FEW_OUTPUTS = [*((name, "penultimate") for name in FEW), ("resnet18", "pooled"), ("squeezenet1_1", "flattened")]


def random_backbone(name: str, **arguments) -> Backbone:
    """Small enough to run, in train mode, with values at which a mistake shows."""
    size = RUN[name]
    torch.manual_seed(0)
    if name == "tiny_resnet":
        return with_random_values(TinyResNet(weights=None, image_size=size))
    with parameters_on_meta():
        backbone = TorchvisionBackbone(name, weights=None, image_size=size, **arguments)
    return with_random_values(backbone)


def pictures(name: str, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, RUN[name], RUN[name]), dtype=torch.uint8, generator=generator)


def freeze(backbone: Backbone, groups: int) -> None:
    """As a strategy does it: no gradients, and eval mode for what the groups own themselves."""
    backbone.train()
    for group in backbone.layer_groups()[:groups]:
        group.set_trainable(False)
        for module in group.modules.values():
            module.training = False


@dataclass(frozen=True)
class Kind:
    """All there is of a tensor without values."""

    size: tuple
    stride: tuple
    dtype: torch.dtype


def kind(value):
    return Kind(value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else value


class Recorder(TorchDispatchMode):
    """Every operation with its arguments: tensors that were there before by name, others by when they came up."""

    kinds = {}

    def __init__(self, known: nn.Module):
        super().__init__()
        self.names = {id(tensor): name for name, tensor in known.state_dict(keep_vars=True).items()}
        self.alive, self.operations = [], []

    def name_of(self, value):
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self.names:
            self.names[id(value)] = (len(self.names), value.shape, value.stride())
            self.alive.append(value)  # or its id would be given to another
        return self.names[id(value)]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = tree_leaves((args, kwargs))
        outputs = self.outputs(func, args, kwargs or {}, (func, *map(kind, given), *map(type, given)))
        self.operations.append((func, *map(self.name_of, [*given, *tree_leaves(outputs)])))
        return outputs

    def outputs(self, func, args, kwargs, key):
        """Without values these depend on the kinds of the arguments alone; to find out anew takes most of the time."""
        if func._schema.is_mutable:
            return func(*args, **kwargs)
        if key not in self.kinds:
            outputs = func(*args, **kwargs)
            self.kinds[key] = tree_map(kind, outputs)
            return outputs
        return tree_map_only(Kind, lambda known: torch.empty_strided(**vars(known), device="meta"), self.kinds[key])


@pytest.mark.parametrize("name", exhaustive_unless(SMALLEST, MODELS))
def test_the_same_operations_on_the_same_tensors(name):
    """For every model at no cost: on the meta device, half of it in train mode."""
    with parameters_on_meta():
        backbone = TorchvisionBackbone(name, weights=None).to("meta")
    size, groups = backbone.preprocess.image_size, len(backbone.layer_groups())
    images = torch.empty(2, 3, size, size, dtype=torch.uint8, device="meta")

    def operations(cut: int | None) -> list[tuple]:
        freeze(backbone, groups // 2)
        prefix, rest = (nn.Identity(), backbone) if cut is None else in_two_parts(backbone, cut)
        with torch.no_grad(), Recorder(backbone) as recorder:
            assert rest(prefix(images)).shape == (2, backbone.num_features)
        return recorder.operations

    whole = operations(None)
    assert len(whole) > 10
    for cut in (1, groups - 1):
        assert operations(cut) == whole


@pytest.mark.parametrize(
    ("name", "output"), exhaustive_unless(FEW_OUTPUTS, [*((name, "penultimate") for name in RUN), *VARIANTS])
)
def test_the_same_bits_at_every_cut(name, output):
    backbone = random_backbone(name, **({} if name == "tiny_resnet" else {"output": output})).eval()
    images, groups = pictures(name), len(backbone.layer_groups())
    with torch.no_grad():
        whole = backbone(images)
        assert whole.std() > 1e-3
        for cut in range(1, groups + 1):
            prefix, rest = in_two_parts(backbone, cut)
            assert torch.equal(rest(prefix(images)), whole), cut


def test_a_cut_behind_the_last_group_leaves_nothing_to_do():
    backbone = random_backbone("tiny_resnet").eval()
    prefix, rest = in_two_parts(backbone, 4)
    features = prefix(pictures("tiny_resnet"))
    assert features.shape == (2, backbone.num_features)
    assert rest(features) is features


@pytest.mark.parametrize("cut", [0, 5, -1])
def test_impossible_numbers_of_groups_are_refused(cut):
    with pytest.raises(ValueError, match=f"groups={cut}: the backbone has 4"):
        in_two_parts(TinyResNet(), cut)


@pytest.mark.parametrize("name", RUN)
def test_parts_share_every_parameter_and_mode(name):
    backbone = random_backbone(name)
    groups = backbone.layer_groups()
    cut = len(groups) // 2
    prefix, rest = in_two_parts(backbone, cut)
    for part, its_groups in ((prefix, groups[:cut]), (rest, groups[cut:])):
        named = {name: parameter for group in its_groups for name, parameter in group.named_parameters()}
        own = dict(part.named_parameters())
        assert {name: id(parameter) for name, parameter in own.items()} == {n: id(p) for n, p in named.items()}
    rest.eval()
    assert not any(m.training for g in groups[cut:] for m in g.modules.values() if list(m.parameters(recurse=False)))
    assert groups[0].modules[""].training
    assert backbone.training


def test_every_tensor_is_in_exactly_one_part():
    prefix, rest = in_two_parts(TinyResNet(), 3)
    assert sorted([*prefix.state_dict(), *rest.state_dict()]) == sorted(TinyResNet().state_dict())


@pytest.mark.parametrize(
    "name",
    ["convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "mobilenet_v2", "regnet_x_400mf"]
    + ["resnet18", "squeezenet1_1", "swin_t", "tiny_resnet", "vit_b_32"]
    + [pytest.param("vgg11_bn", marks=pytest.mark.slow)],
)
def test_the_same_gradients_and_statistics(name):
    """With BatchNorm on batch statistics, dropout and stochastic depth behind the cut."""
    images = pictures(name, batch=4)
    whole = random_backbone(name)
    cut = len(whole.layer_groups()) // 2
    freeze(whole, cut)
    parted = copy.deepcopy(whole)
    prefix, rest = in_two_parts(parted, cut)
    with torch.no_grad():
        activation = prefix(images)
    for features in (lambda: whole(images), lambda: rest(activation)):
        torch.manual_seed(2)
        functional.dropout(features(), 0.1).square().mean().backward()
    for (name, one), two in zip(whole.named_parameters(), parted.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None) == (not one.requires_grad), name
        assert one.grad is None or (torch.equal(one.grad, two.grad) and one.grad.abs().sum() > 0), name
    for (name, one), two in zip(whole.named_buffers(), parted.buffers(), strict=True):
        assert torch.equal(one, two), name


def test_activation_survives_storage_in_its_own_order_of_dimensions():
    """What a cache has to keep beside the values: another memory format is another kernel, which rounds differently."""
    backbone = random_backbone("resnet18").eval()
    prefix, rest = in_two_parts(backbone, 2)
    with torch.no_grad():
        activation = prefix(pictures("resnet18"))
        order = activation.dim_order()
        assert order == (0, 2, 3, 1)
        stored = activation.permute(order).contiguous().numpy().copy()
        restored = torch.from_numpy(stored).permute(tuple(order.index(i) for i in range(4)))
        assert restored.stride() == activation.stride()
        assert torch.equal(rest(restored), rest(activation))


class Toy(Backbone):
    """Blocks `a` and `b`, and a way to put them together that a test chooses."""

    num_features = 4
    blocks = ["net.a", "net.b"]

    def __init__(self, run):
        super().__init__(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
        self.net = nn.ModuleDict({"stem": nn.Conv2d(3, 4, 1), "a": nn.Conv2d(4, 4, 1), "b": nn.Conv2d(4, 4, 1)})
        self.run = run

    def forward(self, inputs: Tensor) -> Tensor:
        return self.run(self, self.net["stem"](self.normalise(inputs)))


def plain(toy, x):
    return toy.net["b"](toy.net["a"](x)).mean((2, 3))


def around_b(toy, x):
    return (toy.net["b"](toy.net["a"](x)) + x).mean((2, 3))


def b_twice(toy, x):
    return toy.net["b"](toy.net["b"](toy.net["a"](x))).mean((2, 3))


def b_by_its_weight(toy, x):
    return functional.conv2d(toy.net["a"](x), toy.net["b"].weight).mean((2, 3))


def a_again_behind_b(toy, x):
    return functional.conv2d(toy.net["b"](toy.net["a"](x)), toy.net["a"].weight).mean((2, 3))


def b_early(toy, x):
    return toy.net["b"](toy.net["a"](x) * toy.net["b"].bias.mean()).mean((2, 3))


def by_value(toy, x):
    return toy.net["b"](x if x.mean() > 0 else toy.net["a"](x)).mean((2, 3))


def by_mode(toy, x):
    return toy.net["b"](functional.dropout(toy.net["a"](x), 0.5, toy.training)).mean((2, 3))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (around_b, r"2 values cross the cut before 'net\.b'"),
        (b_twice, "called 2 times"),
        (b_by_its_weight, "called 0 times"),
        (b_early, r"'net\.b\.bias' is used before 'net\.b', but belongs to a group behind"),
        (by_value, "cannot be recorded: TraceError"),
        (by_mode, "one thing in train mode and another in eval mode"),
    ],
)
def test_what_cannot_be_cut_is_told(run, message):
    toy = Toy(run)
    modes = [module.training for module in toy.train().modules()]
    with pytest.raises(NoCleanCutError, match=message):
        in_two_parts(toy, 2)
    assert [module.training for module in toy.modules()] == modes


class Positions(nn.Module):
    """A table that does not depend on the pictures, computed outside `forward`, as timm's rotary embeddings are."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("places", torch.arange(float(size)), persistent=False)

    def table(self) -> Tensor:
        return self.places.sin()[None, :, None] * self.places.cos()


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)

    def forward(self, x, table, size=None):
        x = self.layer(x) + table
        return x if size is None else (x[..., : size[0], : size[1]], size)


class WithTable(Backbone):
    """Beside the activation, each block takes a table of positions, and perhaps the size of the map."""

    num_features = 4
    blocks = ["a", "b"]
    SIDE = 6

    def __init__(self, with_size: bool):
        super().__init__(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
        self.preprocess = ImagePreprocess(self.SIDE, self.SIDE)
        self.token = nn.Parameter(torch.rand(1, 4))
        self.stem = nn.Conv2d(3, 4, 1)
        self.positions = Positions(self.SIDE)
        self.a, self.b = Shifted(), Shifted()
        self.with_size = with_size

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.stem(self.normalise(inputs))
        batch, _, height, width = x.shape
        table, token = self.positions.table(), self.token.expand(batch, -1)
        if self.with_size:
            x, size = self.a(x, table, (height, width))
            x, size = self.b(x, table, size)
            return x.view(batch, 4, size[0] * size[1]).mean(2) + token
        return self.b(self.a(x, table), table).mean((2, 3)) + self.token


@pytest.mark.parametrize("with_size", [False, True])
def test_what_does_not_depend_on_the_inputs_is_known_behind_the_cut(with_size):
    backbone = WithTable(with_size).requires_grad_(False)
    before = set(vars(backbone))
    modes = [module.training for module in backbone.eval().modules()]
    images = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)
    prefix, between, rest = in_parts(backbone, [1, 2])
    random = torch.get_rng_state()
    for cut in (1, 2):
        one, other = in_two_parts(backbone, cut)
        assert torch.equal(other(one(images)), backbone(images))
    assert torch.equal(rest(between(prefix(images))), backbone(images))
    assert set(vars(backbone)) == before, "recording leaves nothing behind"
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in backbone.modules()] == modes


def test_a_table_of_parameters_is_computed_behind_the_cut():
    backbone = WithTable(with_size=False).eval()
    backbone.positions.places = nn.Parameter(backbone.positions.places)
    images = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)
    prefix, rest = in_two_parts(backbone, 2)
    assert torch.equal(rest(prefix(images)), backbone(images))
    assert "positions.places" in dict(rest.named_parameters())


def test_a_table_that_differs_between_the_modes_is_refused():
    backbone = WithTable(with_size=False)
    backbone.positions.table = lambda: torch.rand(1, 6, 6)
    with pytest.raises(NoCleanCutError, match="one thing in train mode and another in eval mode"):
        in_two_parts(backbone, 1)


def test_a_frozen_parameter_of_the_prefix_is_used_again_behind_the_cut():
    toy = Toy(a_again_behind_b)
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    prefix, rest = in_two_parts(toy, 2)
    assert torch.equal(rest(prefix(images)), toy(images))
    assert {id(parameter) for parameter in rest.parameters()} >= {id(toy.net["a"].weight)}


class OnPair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)

    def forward(self, pair):
        return self.layer(pair[0]), pair[1]


class OnTuples(WithTable):
    def __init__(self):
        super().__init__(with_size=False)
        self.a, self.b = OnPair(), OnPair()

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.stem(self.normalise(inputs))
        return self.b(self.a((x, x)))[0].mean((2, 3))


def test_blocks_that_take_several_tensors_in_a_tuple_are_refused():
    with pytest.raises(NoCleanCutError, match="several values, as one tuple, cross the cut before 'b'"):
        in_two_parts(OnTuples(), 2)


class Nested(Backbone):
    """Its blocks lie in a module that is called."""

    num_features = 4
    blocks = ["net.1", "net.2"]

    def __init__(self):
        super().__init__(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
        self.net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(self.normalise(inputs)).mean((2, 3))


def double(module, given, *output):
    return output[0] * 2 if output else (given[0] * 2,)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("place", ["", "net"])
def test_hooks_around_the_cut_are_told(place, register):
    nested = Nested().eval()
    images = torch.rand(2, 3, 4, 4)
    handle = getattr(nested.get_submodule(place), register)(double)
    with pytest.raises(NoCleanCutError, match=r"hooks around 'net\.2'"):
        in_two_parts(nested, 2)
    handle.remove()
    for block in nested.net:
        getattr(block, register)(double)
    prefix, rest = in_two_parts(nested, 2)
    assert torch.equal(rest(prefix(images)), nested(images)), "those of a block run"


def test_compilation_around_the_cut_is_passed_by():
    nested = Nested().eval()
    nested.net.compile(backend=lambda *_: pytest.fail("was given a stand-in"))
    prefix, rest = in_two_parts(nested, 2)
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    whole = rest(prefix(images))
    nested.net._compiled_call_impl = None
    assert torch.equal(whole, nested(images))


@pytest.mark.parametrize("name", exhaustive_unless(FEW, RUN))
def test_inference_copy_computes_nearly_the_same(name):
    backbone = random_backbone(name)
    images = pictures(name)
    cuts = {len(backbone.layer_groups()) // 2, len(backbone.layer_groups())}
    for prefix in [in_two_parts(backbone, cut)[0] for cut in cuts]:
        before = {key: value.clone() for key, value in prefix.state_dict().items()}
        faster = InferenceCopy(prefix.train()).train()(images)
        assert prefix.training
        assert all(torch.equal(value, before[key]) for key, value in prefix.state_dict().items())
        with torch.no_grad():
            expected = prefix.eval()(images)
        assert (faster - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "left"),
    [("resnet18", 0), ("mobilenet_v2", 0), ("inception_v3", 0), ("vgg11_bn", 0), ("tiny_resnet", 0)]
    # in a dense block, all but the second norm of a layer come before their convolution
    + [("densenet121", 58 + 4)],
)
def test_inference_copy_has_no_batch_norm_left(name, left):
    copied = InferenceCopy(random_backbone(name))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in copied.modules()) == left


def test_inference_copy_in_bf16():
    backbone = random_backbone("resnet18").eval()
    images = pictures("resnet18")
    half, full = InferenceCopy(backbone, bf16=True)(images), InferenceCopy(backbone)(images)
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.05 * full.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(InferenceCopy(backbone)(images), full), "its own precision, whatever surrounds it"


def test_what_an_inference_copy_returns_can_be_trained_from():
    prefix, rest = in_two_parts(random_backbone("tiny_resnet"), 2)
    rest(InferenceCopy(prefix)(pictures("tiny_resnet"))).sum().backward()
    assert all(parameter.grad is not None for parameter in rest.parameters())
    assert all(parameter.grad is None for parameter in prefix.parameters())


def conv_seen_twice(self, x):
    x = self.conv(x)
    return self.norm(x) + x


def conv_used_twice(self, x):
    return self.norm(self.conv(self.conv(x)))


def norm_used_twice(self, x):
    return self.norm(self.norm(self.conv(x)))


def by_mean(self, x):
    return self.norm(self.conv(x if x.mean() > 0 else -x))


def straight(self, x):
    return self.norm(self.conv(x))


class Pair(nn.Module):
    def __init__(self, run, norm=None, conv=None):
        super().__init__()
        self.conv = conv or nn.Conv2d(4, 4, 1)
        self.norm = norm or nn.BatchNorm2d(4)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


@pytest.mark.parametrize(
    "pair",
    [
        Pair(conv_seen_twice),
        Pair(conv_used_twice),
        Pair(norm_used_twice),
        Pair(by_mean),
        Pair(straight, norm=nn.BatchNorm2d(4, track_running_stats=False)),
        Pair(straight, conv=parametrizations.weight_norm(nn.Conv2d(4, 4, 1))),
        Pair(straight, conv=nn.ConvTranspose2d(4, 4, 1)),
    ],
)
def test_what_cannot_be_folded_is_left_alone(pair):
    x = torch.randn(3, 4, 5, 5)
    pair(x)  # running statistics of their own
    copied = InferenceCopy(pair)
    assert [type(module) for module in copied.network.modules()] == [type(module) for module in pair.modules()]
    with torch.no_grad():
        torch.testing.assert_close(copied(x), pair.eval()(x))


def test_one_and_three_dimensions_and_no_affine_are_folded():
    for norm, conv, shape in (
        (nn.BatchNorm1d(4), nn.Conv1d(4, 4, 1, bias=False), (3, 4, 5)),
        (nn.BatchNorm3d(4), nn.Conv3d(4, 4, 1), (3, 4, 5, 5, 5)),
        (nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 4, 1), (3, 4, 5, 5)),
    ):
        pair, x = Pair(straight, norm, conv), torch.randn(shape)
        pair(x)
        copied = InferenceCopy(pair)
        assert isinstance(copied.network.norm, nn.Identity)
        with torch.no_grad():
            torch.testing.assert_close(copied(x), pair.eval()(x))


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "swin_t", "tiny_resnet", "vit_b_32"])
def test_the_same_bits_in_many_parts(name):
    backbone = random_backbone(name).eval()
    groups = backbone.layer_groups()
    counts = list(range(1, len(groups) + 1))
    parts = in_parts(backbone, counts)
    assert len(parts) == len(counts) + 1
    for part, group in zip(parts, groups, strict=False):
        assert set(part.parameters()) == set(group.parameters())
    with torch.no_grad():
        x = images = pictures(name)
        for count, part in zip(counts, parts, strict=False):
            x = part(x)
            assert torch.equal(x, in_two_parts(backbone, count)[0](images)), count
        assert torch.equal(parts[-1](x), backbone(images))


@pytest.mark.parametrize("counts", [[], [2, 1], [1, 1], [0, 2], [3, 5]], ids=str)
def test_cuts_that_do_not_ascend_or_do_not_exist_are_refused(counts):
    if not counts:
        backbone = TinyResNet()
        assert in_parts(backbone, counts) == [backbone]
        return
    with pytest.raises(ValueError, match="the backbone has 4 layer groups"):
        in_parts(TinyResNet(), counts)


@pytest.mark.parametrize("run", [around_b, b_twice, b_early])
def test_many_parts_are_refused_where_one_cut_is_not_clean(run):
    assert len(in_parts(Toy(plain), [1, 2])) == 3
    with pytest.raises(NoCleanCutError):
        in_parts(Toy(run), [1, 2])
