import pickle
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torchvision.transforms.v2 import functional

from headstart.errors import UsageError
from headstart.inputs.images import augmentation


@dataclass
class Preprocess:
    """A simple preprocess instead of a backbone's: resizes to a square."""

    image_size: int = 24
    interpolation: str = "bilinear"
    decode_side: int = 48

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return functional.resize(image, [self.image_size, self.image_size], antialias=True)


RANDOM = {
    "flip_crop": augmentation.flip_crop,
    "trivial_augment": augmentation.trivial_augment,
    "affine": partial(augmentation.affine, degrees=30, shear=10, zoom=0.2, shift=0.1, flip=0.5),
    "flip_crop_erase": partial(augmentation.flip_crop, erase=0.5),
}


def photo(height: int = 40, width: int = 60, seed: int = 0) -> torch.Tensor:
    """A smooth picture, because a resize would average noise to grey."""
    small = torch.randint(256, (3, 5, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return functional.resize(small, [height, width], antialias=True)


@pytest.mark.parametrize("name", [*RANDOM, "none"])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (8, 8), (1, 100)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_bytes_in_bytes_out_in_the_right_size(name, shape, interpolation):
    make = RANDOM.get(name, augmentation.none)
    transform = make(Preprocess(interpolation=interpolation))
    for seed in range(5):
        picture = photo(*shape, seed)
        before = picture.clone()
        changed = transform(picture)
        assert changed.dtype == torch.uint8
        assert changed.shape == (3, 24, 24)
        assert torch.equal(picture, before)  # a cached picture stays what it was


@pytest.mark.parametrize("name", RANDOM)
def test_calls_differ_and_follow_the_seed(name):
    transform = RANDOM[name](Preprocess())

    def draw() -> list[bytes]:
        torch.manual_seed(1)
        return [transform(photo()).numpy().tobytes() for _ in range(10)]

    first = draw()
    assert len(set(first)) > 5
    assert draw() == first


@pytest.mark.parametrize("name", [*RANDOM, "none"])
def test_spawned_workers_get_the_same_transform(name):
    transform = RANDOM.get(name, augmentation.none)(Preprocess())
    copied = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(3)
    expected = transform(photo())
    torch.manual_seed(3)
    assert torch.equal(copied(photo()), expected)


def test_none_changes_nothing():
    assert augmentation.none(Preprocess()) == Preprocess()
    assert torch.equal(augmentation.none(Preprocess())(photo()), Preprocess()(photo()))


def test_affine_changes_nothing_until_asked():
    assert torch.equal(augmentation.affine(Preprocess())(photo()), Preprocess()(photo()))


def test_affine_fills_with_grey_what_it_uncovers():
    transform = augmentation.affine(Preprocess(), degrees=45)
    white = torch.full((3, 24, 24), 255, dtype=torch.uint8)
    torch.manual_seed(0)
    corners = torch.stack([transform(white)[:, 0, 0] for _ in range(20)])
    assert (corners == torch.tensor([124, 124, 124])).all(1).any()
    assert corners.min() >= 105  # torchvision blends a little black into the seam; without `fill` all is black


def test_affine_comes_after_the_preprocess():
    class Whiten(Preprocess):
        def __call__(self, image):
            return torch.full((3, 24, 24), 255, dtype=torch.uint8)

    assert augmentation.affine(Whiten(), shift=1.0)(photo()).min() < 255  # what the move uncovers is not white


ERASABLE = {
    "flip_crop": partial(augmentation.flip_crop, scale=1.0, flip=0.0),
    "trivial_augment": augmentation.trivial_augment,
    "affine": augmentation.affine,
}


@pytest.mark.parametrize("name", ERASABLE)
def test_what_is_erased_is_a_grey_rectangle(name):
    white = torch.full((3, 24, 24), 255, dtype=torch.uint8)
    transform = ERASABLE[name](Preprocess(), erase=1.0)
    for _ in range(10):
        grey = (transform(white) == 124).all(dim=0)
        rows, columns = grey.any(dim=1).sum(), grey.any(dim=0).sum()
        if name == "trivial_augment":  # which leaves grey of its own
            assert grey.float().mean() > 0.01
        else:
            assert 0.01 < grey.float().mean() < 0.36
            assert grey.sum() == rows * columns


def test_erasing_is_off_until_asked_and_disturbs_nothing():
    for make in ERASABLE.values():
        torch.manual_seed(5)
        plain = make(Preprocess())(photo(24, 24))
        after = torch.get_rng_state()
        torch.manual_seed(5)
        assert torch.equal(make(Preprocess(), erase=0.0)(photo(24, 24)), plain)
        assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize(("flip", "flipped"), [(0.0, 0), (1.0, 10)])
def test_flip_is_left_and_right(flip, flipped):
    transform = augmentation.affine(Preprocess(), flip=flip)
    square = photo(24, 24)
    assert sum(torch.equal(transform(square), square.flip(2)) for _ in range(10)) == flipped


def test_scale_bounds_the_crop():
    whole = augmentation.flip_crop(Preprocess(), scale=1.0, flip=0.0)
    assert torch.equal(whole(photo(24, 24)), photo(24, 24))


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (augmentation.flip_crop, {"scale": 0.0}, "augmentation.scale=0.0: give a number from"),
        (augmentation.flip_crop, {"flip": 1.5}, "augmentation.flip=1.5"),
        (augmentation.trivial_augment, {"scale": 2}, "augmentation.scale=2"),
        (augmentation.trivial_augment, {"erase": 2}, "augmentation.erase=2"),
        (augmentation.affine, {"zoom": 1.2}, "augmentation.zoom=1.2"),
        (augmentation.affine, {"degrees": -5}, "augmentation.degrees=-5"),
        (augmentation.affine, {"shift": 20}, "augmentation.shift=20: give a number from 0 to 1"),
        (augmentation.affine, {"shear": 90}, "augmentation.shear=90"),
    ],
)
def test_out_of_range(make, given, message):
    with pytest.raises(UsageError, match=message):
        make(Preprocess(), **given)


@pytest.mark.parametrize("name", RANDOM)
def test_the_fixed_part_is_the_same_every_time_and_the_random_one_does_not_care_who_computed_it(name):
    transform = RANDOM[name](Preprocess())
    kept = transform.deterministic(photo(90, 120))
    assert torch.equal(kept, transform.deterministic(photo(90, 120)))
    stored = torch.from_numpy(kept.permute(1, 2, 0).contiguous().numpy().copy()).permute(2, 0, 1)
    for seed in range(20):
        torch.manual_seed(seed)
        changed = transform(photo(90, 120))
        torch.manual_seed(seed)
        assert torch.equal(transform.random(stored), changed)


@pytest.mark.parametrize(("scale", "side"), [(1.0, 24), (0.35, 41), (0.25, 48), (0.01, 48)])
@pytest.mark.parametrize("shape", [(90, 200), (200, 90)])
def test_flip_crop_reduces_as_far_as_its_smallest_crop_allows(scale, side, shape):
    fixed = augmentation.flip_crop(Preprocess(), scale=scale).deterministic
    assert min(fixed(photo(*shape)).shape[1:]) == side
    assert torch.equal(fixed(photo(20, 200)), photo(20, 200))


def test_what_affine_fixes_is_the_preprocess_itself():
    preprocess = Preprocess()
    assert augmentation.affine(preprocess, degrees=3).deterministic is preprocess


@pytest.mark.parametrize("name", ["flip_crop", "trivial_augment", "affine"])
def test_other_inputs_than_pictures_are_refused(name):
    with pytest.raises(UsageError, match="for pictures, not for samples: type augmentation=none"):
        getattr(augmentation, name)(object())
