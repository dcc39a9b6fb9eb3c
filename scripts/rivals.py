"""Trains the same weights on the same pictures with other libraries, for comparison in `benchmark.py`.

Each follows its own tutorial or manual, except for the batch size (`--batch-size`; the tutorial has 4, fastai 64), and
imports nothing from this project:

    tutorial_frozen   the PyTorch transfer-learning tutorial's fixed feature extractor: SGD 0.001, momentum 0.9, x0.1
                      every 7 epochs; only the head has gradients, but all layers are in train mode
    tutorial_full     finetuning of the same tutorial: all layers are trained with this learning rate
    lightning         a LightningModule with the defaults of `BackboneFinetuning`: only the head; from epoch 10 on all
                      layers, the backbone with a tenth of the learning rate, doubled every epoch; Adam 0.001
    fastai            the model of `vision_learner`, `fine_tune(epochs)` with its defaults (needs `pip install fastai`)
    forward           nothing is trained: one pass of the frozen network over the same pictures

    python scripts/rivals.py tutorial_frozen --data cats_dogs --weights mobilenet_v2.pth --epochs 20

prints one line of JSON: wall seconds of the process, seconds of the epochs, validation accuracy after each epoch, and
the number of training pictures through the network; with `--test` also the accuracy on `<data>/test` of the epoch with
the best validation accuracy.
"""

import argparse
import copy
import json
import time
from pathlib import Path

START = time.perf_counter()

import torch  # noqa: E402 - the clock starts before the import, which is part of the waiting time
import torchvision  # noqa: E402
from torch import nn  # noqa: E402
from torchvision import transforms  # noqa: E402

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Best:
    """Keeps the weights with the best validation accuracy."""

    def __init__(self):
        self.score, self.weights = -1.0, None

    def look(self, score: float, model: nn.Module) -> None:
        """Keeps the weights if they are better than any before."""
        if score > self.score:
            self.score, self.weights = score, copy.deepcopy(model.state_dict())


def resize_to(size: int) -> int:
    """Length of the shorter side before the centre crop to this size, 256 for 224."""
    return round(size * 256 / 224)


def loaders(options: argparse.Namespace, augmented: bool) -> dict:
    """Data loaders of `<data>/train`, `<data>/val` and, with `--test`, `<data>/test`; the tutorial's transforms."""
    end = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    size = options.image_size
    plain = transforms.Compose([transforms.Resize(resize_to(size)), transforms.CenterCrop(size), *end])
    random = transforms.Compose([transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *end])
    found = {}
    for split in ("train", "val", *(["test"] if options.test else [])):
        transform = random if augmented and split == "train" else plain
        pictures = torchvision.datasets.ImageFolder(f"{options.data}/{split}", transform)
        shuffle = split == "train"
        found[split] = torch.utils.data.DataLoader(
            pictures, options.batch_size, shuffle=shuffle, num_workers=options.workers
        )
    return found


def tested(model: nn.Module, best: Best, found: dict) -> dict:
    """Accuracy of the best weights on test; empty without `--test`."""
    if "test" not in found:
        return {}
    model.load_state_dict(best.weights)
    return {"test_acc": accuracy(model, found["test"])}


def network(weights: str) -> nn.Module:
    """MobileNetV2 with these weights."""
    model = torchvision.models.mobilenet_v2()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model


def accuracy(model: nn.Module, batches) -> float:
    """Accuracy in eval mode."""
    model.eval()
    right = total = 0
    with torch.no_grad():
        for inputs, targets in batches:
            right += (model(inputs).argmax(dim=1) == targets).sum().item()
            total += len(targets)
    return right / total


def tutorial(options: argparse.Namespace, frozen: bool) -> dict:
    """The tutorial's loop."""
    found = loaders(options, augmented=True)
    model = network(options.weights)
    for parameter in model.parameters():
        parameter.requires_grad = not frozen
    model.classifier[1] = nn.Linear(model.last_channel, len(found["train"].dataset.classes))
    learning = model.classifier[1].parameters() if frozen else model.parameters()
    optimizer = torch.optim.SGD(learning, lr=0.001, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    criterion, scores, epochs, passes, best = nn.CrossEntropyLoss(), [], [], 0, Best()
    for _ in range(options.epochs):
        start = time.perf_counter()
        model.train()
        for inputs, targets in found["train"]:
            optimizer.zero_grad()
            outputs = model(inputs)
            _, predicted = torch.max(outputs, 1)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            loss.item(), torch.sum(predicted == targets.data)  # the running loss and accuracy of the tutorial
            passes += len(inputs)
        scheduler.step()
        epochs.append(time.perf_counter() - start)
        scores.append(accuracy(model, found["val"]))
        best.look(scores[-1], model)
    return {"epochs": epochs, "val_acc": scores, "passes": passes, **tested(model, best, found)}


def lightning(options: argparse.Namespace) -> dict:
    """`BackboneFinetuning` with its defaults."""
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import BackboneFinetuning, Callback

    class Module(pl.LightningModule):
        def __init__(self, classes: int):
            super().__init__()
            model = network(options.weights)
            self.backbone = nn.Sequential(model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(model.last_channel, classes)
            self.right = self.total = 0

        def forward(self, inputs):
            return self.head(self.backbone(inputs))

        def training_step(self, batch, _):
            inputs, targets = batch
            return nn.functional.cross_entropy(self(inputs), targets)

        def validation_step(self, batch, _):
            inputs, targets = batch
            self.right += (self(inputs).argmax(dim=1) == targets).sum().item()
            self.total += len(targets)

        def on_validation_epoch_end(self):
            scores.append(self.right / self.total)
            best.look(scores[-1], self)
            self.right = self.total = 0

        def configure_optimizers(self):
            return torch.optim.Adam(filter(lambda parameter: parameter.requires_grad, self.parameters()), lr=0.001)

    class Clock(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            self.start = time.perf_counter()

        def on_train_epoch_end(self, trainer, pl_module):
            epochs.append(time.perf_counter() - self.start)  # with the validation

    scores, epochs, best = [], [], Best()
    found = loaders(options, augmented=True)
    trainer = pl.Trainer(
        max_epochs=options.epochs, callbacks=[BackboneFinetuning(), Clock()], logger=False, num_sanity_val_steps=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = Module(len(found["train"].dataset.classes))
    trainer.fit(module, found["train"], found["val"])
    passes = options.epochs * len(found["train"].dataset)
    return {"epochs": epochs, "val_acc": scores, "passes": passes, **tested(module, best, found)}


def fastai(options: argparse.Namespace) -> dict:
    """`fine_tune` with its defaults: one epoch for the head, then all layers with discriminative learning rates."""
    from fastai.vision import all as vision

    class KeepBest(vision.Callback):
        order = 60  # after the Recorder

        def after_epoch(self):
            best.look(self.recorder.values[-1][-1], self.model)

    best, size = Best(), options.image_size
    # fastai drops incomplete training batches: with fewer pictures than a batch there would be none
    batch_size = min(options.batch_size, sum(1 for _ in Path(options.data, "train").glob("*/*")))
    blocks = vision.ImageDataLoaders.from_folder(
        options.data, train="train", valid="val", item_tfms=vision.Resize(resize_to(size)), bs=batch_size,
        batch_tfms=[*vision.aug_transforms(size=size), vision.Normalize.from_stats(MEAN, STD)], num_workers=0,
    )  # fmt: skip
    base = network(options.weights)  # like `vision_learner`, which would download the weights
    model = nn.Sequential(base.features, vision.create_head(base.last_channel, blocks.c))
    vision.apply_init(model[1], nn.init.kaiming_normal_)
    learner = vision.Learner(blocks, model, splitter=vision.default_split, metrics=vision.accuracy, cbs=KeepBest())
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(options.epochs)
    scores = [row[-1] for row in learner.recorder.values]
    result = {"epochs": [], "val_acc": scores, "passes": (options.epochs + 1) * len(blocks.train_ds)}
    if options.test:
        model.load_state_dict(best.weights)
        pictures = blocks.test_dl(vision.get_image_files(f"{options.data}/test"), with_labels=True)
        with learner.no_bar(), learner.no_logging():
            result["test_acc"] = learner.validate(dl=pictures)[-1]
    return result


def forward(options: argparse.Namespace) -> dict:
    """One pass over train and val in plain torchvision, in fp32 and eval mode."""
    found = loaders(options, augmented=False)
    model, passes = network(options.weights).eval(), 0
    start = time.perf_counter()
    with torch.inference_mode():
        for batches in found.values():
            for inputs, _ in batches:
                model.features(inputs).mean(dim=(2, 3))
                passes += len(inputs)
    return {"epochs": [time.perf_counter() - start], "val_acc": [], "passes": passes}


KINDS = {
    "tutorial_frozen": lambda options: tutorial(options, frozen=True),
    "tutorial_full": lambda options: tutorial(options, frozen=False),
    "lightning": lightning,
    "fastai": fastai,
    "forward": forward,
}


def main() -> None:
    """Runs one kind and prints its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--data", required=True, help="a folder with train/<class>/ and val/<class>/")
    parser.add_argument("--weights", required=True, help="a state_dict of torchvision's mobilenet_v2")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    result = KINDS[options.kind](options)
    print(json.dumps({"kind": options.kind, "seconds": time.perf_counter() - START, **result}))


if __name__ == "__main__":
    main()
