"""Real pictures, real weights; skipped unless HEADSTART_REAL names a folder that has them."""

import pytest

from headstart.training.run import train

pytestmark = pytest.mark.real


@pytest.mark.parametrize("model", ["mobilenet_v2"])
def test_transfer_to_cats_and_dogs(model, real, composed):
    """One epoch on a quarter of the photos: far above chance, close to what the whole set gives."""
    result = train(
        composed(
            f"model={model}", f"model.weights={real / 'weights/mobilenet_v2_imagenet.pth'}", "data=cats_dogs",
            f"data.root={real / 'data/cats_dogs'}", "data.shots_per_class=100", "model.image_size=128",
            "trainer.max_epochs=2", "trainer=cpu",
        )
    )  # fmt: skip
    assert result.num_train == 200
    assert result.metrics["val/acc"] > 0.9


def test_a_resnet_runs_on_real_photos_without_weights(real, composed):
    result = train(
        composed(
            "model=resnet18", "model.weights=null", "data=cats_dogs", f"data.root={real / 'data/cats_dogs'}",
            "model.image_size=64", "trainer.max_epochs=1", "trainer=cpu", "data.shots_per_class=20",
        )
    )  # fmt: skip
    assert 0 <= result.metrics["test/acc"] <= 1
