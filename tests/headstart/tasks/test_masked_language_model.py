"""An encoder of texts predicts masked tokens, without labels, and is then the start of a classifier."""

import math

import pytest
import safetensors.torch
import tiny_text
import torch
from torch.nn import functional

from headstart.backbones.text_encoder import TextEncoder
from headstart.errors import UsageError
from headstart.files import read_torch_file
from headstart.tasks import checkpoint
from headstart.training import run as training
from headstart.training.build import build_data, build_task

MODEL = ("task=masked_language_model", "monitor=val/loss")
HEAD_FIRST = ("finetuning=unfreeze_at", "finetuning.epoch=1")


@pytest.fixture
def pretrained(tmp_path):
    """The folder of a model with weights."""
    folder = tiny_text.write_model(tmp_path / "model")
    torch.manual_seed(0)
    safetensors.torch.save_file(tiny_text.backbone().net.state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture
def lines(tmp_path):
    """A file of reviews without labels."""
    file = tmp_path / "reviews.txt"
    file.write_text("".join(f"{tiny_text.review(n, tiny_text.CLASSES[n % 2])}\n" for n in range(100)))
    return file


@pytest.fixture
def configured(composed, pretrained, lines):
    """The config of a run on these lines."""

    def compose_lines(*overrides: str):
        return composed(
            "data=text_lines", f"data.root={lines}", "model=transformers", f"model.name={pretrained}",
            "data.batch_size=16", "optimizer.lr=0.01", "task.backbone_lr_ratio=1", "trainer=cpu",
            "trainer.max_epochs=3", "trainer.enable_progress_bar=false", "trainer.precision=32-true", *MODEL,
            *overrides,
        )  # fmt: skip

    return compose_lines


def test_the_loss_falls_and_the_encoder_starts_a_classifier(configured, pretrained, tmp_path):
    result = training.train(configured("trainer.max_epochs=12", *HEAD_FIRST))
    assert result.metrics["val/loss"] < 0.8 * math.log(64)
    assert result.metrics["val/perplexity"] == pytest.approx(math.exp(result.metrics["val/loss"]), rel=1e-4)
    assert 0 <= result.metrics["val/acc"] <= 1
    state = read_torch_file(tmp_path / "run/checkpoints/best.ckpt")["state_dict"]
    loaded = TextEncoder(str(pretrained), weights=str(tmp_path / "run"))
    before = TextEncoder(str(pretrained))
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[f"backbone.{name}"])
    assert not torch.equal(loaded.token_embedding.weight, before.token_embedding.weight)
    for name, tensor in loaded.language_model_head().state_dict().items():
        assert torch.equal(tensor, state[f"head.{name}"]), "a second adaptation goes on with the same head"


def test_labelled_texts_are_used_without_their_labels(composed, tmp_path):
    cfg = tiny_text.on_reviews(composed("data=fake", "trainer=cpu", *MODEL, "trainer.max_epochs=1"), tmp_path)
    assert training.train(cfg).metrics.keys() >= {"val/perplexity", "test/perplexity"}


def test_outputs_are_the_masked_places_only(configured):
    cfg = configured()
    task = build_task(cfg, data := build_data(cfg)).eval()
    batch = next(iter(data.val_dataloader()))
    logits, targets = task.outputs(batch)
    hidden = task.backbone.net(batch[0]["tokens"])
    everywhere = task.head(hidden, task.backbone.token_embedding.weight)
    assert logits.shape == (len(targets), 64)
    assert torch.allclose(logits, everywhere[batch[0]["targets"] >= 0], atol=1e-5)
    whole = functional.cross_entropy(everywhere.flatten(0, 1), batch[0]["targets"].flatten())
    assert torch.allclose(task.objective.loss(logits, targets), whole)
    nothing = task.objective.loss(logits[:0], targets[:0])
    assert nothing == 0
    assert nothing.requires_grad


def test_validation_masks_stay_and_training_masks_change(configured):
    cfg = configured()
    build_task(cfg, data := build_data(cfg))
    first, second = ([batch[0]["tokens"] for batch in data.val_dataloader()] for _ in range(2))
    assert all(map(torch.equal, first, second))
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.epoch_sampler.set_epoch(epoch)
        epochs.append([batch[0] for batch in loader])
    masked = [sorted(str(row) for batch in epoch for row in batch["targets"].tolist()) for epoch in epochs]
    assert masked[0] != masked[1]


@pytest.mark.parametrize("strategy", ["full", "gradual"])
def test_other_strategies(strategy, configured):
    cfg = configured(f"finetuning={strategy}", "task.layer_lr_decay=0.5")
    assert training.train(cfg).score < 5


def test_an_interrupted_run_ends_as_if_nothing_had_happened(configured, tmp_path, monkeypatch):
    """Masks, dropout and order are those of the place in the run; killed in the middle of the second epoch."""
    cfg = configured(*HEAD_FIRST)
    whole = cfg.copy()
    whole.paths.run = str(tmp_path / "whole")
    training.train(whole)
    build = training.build_trainer

    def trainer_that_stops(*arguments):
        trainer = build(*arguments)
        step, trainer.fit_loop.epoch_loop.advance = trainer.fit_loop.epoch_loop.advance, None

        def advance(*given):
            if trainer.global_step == 8:
                raise KeyboardInterrupt
            step(*given)

        trainer.fit_loop.epoch_loop.advance = advance
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(training, "build_trainer", trainer_that_stops)
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            training.train(cfg)
    again = cfg.copy()
    again.resume = cfg.paths.run
    training.train(again)
    first, second = (
        read_torch_file(folder / "checkpoints/last.ckpt") for folder in (tmp_path / "whole", tmp_path / "run")
    )
    assert first["global_step"] == second["global_step"] > 8
    assert all(torch.equal(tensor, second["state_dict"][name]) for name, tensor in first["state_dict"].items())
    assert first["metrics"] == second["metrics"]


HEADS = {
    "bert": ("bert.", *(f"cls.predictions.{part}" for part in ("transform.dense.", "transform.LayerNorm.", "bias"))),
    "roberta": ("roberta.", "lm_head.dense.", "lm_head.layer_norm.", "lm_head.bias"),
    "distilbert": ("distilbert.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.bias"),
    "electra": (
        "electra.", *(f"generator_predictions.{part}" for part in ("dense.", "LayerNorm.")), "generator_lm_head.bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_the_head_of_the_pretraining_is_used(kind, pretrained):
    prefix, dense, norm, bias = HEADS[kind]
    file = pretrained / "model.safetensors"
    state = {prefix + name: tensor for name, tensor in safetensors.torch.load_file(file).items()}
    head = {
        **{dense + name: torch.randn(size) for name, size in (("weight", (16, 16)), ("bias", (16,)))},
        **{norm + name: torch.randn(16) for name in ("weight", "bias")},
        bias: torch.randn(64),
    }
    safetensors.torch.save_file(state | head, file)
    backbone = TextEncoder(str(pretrained))
    made = backbone.language_model_head().state_dict()
    assert torch.equal(made["dense.weight"], head[f"{dense}weight"])
    assert torch.equal(made["norm.bias"], head[f"{norm}bias"])
    assert torch.equal(made["bias"], head[bias])
    del head[bias]
    safetensors.torch.save_file(state | head, file)
    assert not backbone.language_model_head().bias.any()


def test_the_head_of_albert_is_used(pretrained):
    transformers = pytest.importorskip("transformers")
    config = transformers.AlbertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        embedding_size=8, max_position_embeddings=24,
    )  # fmt: skip
    theirs = transformers.AlbertForMaskedLM(config)
    with torch.no_grad():
        for tensor in theirs.predictions.parameters():
            tensor.normal_()
    theirs.save_pretrained(pretrained)
    made, head = TextEncoder(str(pretrained)).language_model_head().state_dict(), theirs.predictions
    expected = {"dense": head.dense, "norm": head.LayerNorm}
    for name, module in expected.items():
        assert torch.equal(made[f"{name}.weight"], module.weight)
        assert torch.equal(made[f"{name}.bias"], module.bias)
    assert torch.equal(made["bias"], head.bias)


def test_it_is_the_network_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=24,
    )  # fmt: skip
    theirs = transformers.BertForMaskedLM(config).eval()
    with torch.no_grad():
        theirs.cls.predictions.bias.normal_()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(tiny_text.tokenizer().to_str())
    backbone = TextEncoder(str(tmp_path)).eval()
    tokens = torch.randint(5, 30, (2, 7))
    ours = backbone.language_model_head()(backbone.vectors(tokens), backbone.token_embedding.weight)
    assert torch.allclose(ours, theirs(input_ids=tokens).logits, atol=1e-5)


def test_a_run_is_no_classifier(configured, tmp_path):
    training.train(configured("trainer.max_epochs=1"))
    path = tmp_path / "run/checkpoints/best.ckpt"
    with pytest.raises(UsageError, match=r"holds no classifier.*python src/train.py model=.* model.weights="):
        checkpoint.load_task(path)
    task, _ = checkpoint.load_any_task(path)
    assert task.classes == []


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["auto=true"], "type experiment=adapt_language_model"),
        (["report=true"], "report=true is for classifiers"),
        (["head=mlp"], "no use for head"),
        (["augmentation=flip_crop"], "augmentation=none"),
        (["mixing=mixup"], "no use for mixing"),
        (["task.mask_fraction=0"], "task.mask_fraction=0"),
        (["monitor=val/f1_macro"], "monitor=val/f1_macro is no metric of this task"),
    ],
)
def test_what_does_not_fit_is_refused(overrides, told, configured):
    with pytest.raises(UsageError, match=told):
        training.train(configured(*overrides))


def test_a_closed_form_head_is_refused(configured):
    cfg = configured()
    cfg.finetuning = {"_target_": "headstart.finetuning.probe.Probe", "batch_norm": "frozen"}
    with pytest.raises(UsageError, match="this task has no closed-form head"):
        training.train(cfg)


def test_a_network_of_pictures_and_a_classifier_of_lines_are_refused(quick, configured, tmp_path):
    with pytest.raises(UsageError, match=r"needs an encoder of texts, not TinyResNet: choose model=minilm"):
        training.train(quick(*MODEL))
    cfg = configured(f"paths.run={tmp_path / 'other'}")
    cfg.task = quick().task
    with pytest.raises(UsageError, match="the data have no labels"):
        training.train(cfg)


def test_the_recipe_composes(composed):
    cfg = composed("experiment=adapt_language_model", "data.root=reviews.txt")
    assert cfg.task._target_.endswith("MaskedLanguageModelTask")
    assert (cfg.monitor, cfg.mode, cfg.auto) == ("val/loss", "min", False)
    assert cfg.finetuning.epoch < cfg.trainer.max_epochs
