"""Encoders of texts: the same numbers as `transformers`, cut behind each layer, and files that may vanish."""

import json
import os

import pytest
import safetensors.torch
import tiny_text
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from headstart.backbones import any_encoder
from headstart.backbones.bert import Architecture, Bert
from headstart.backbones.parts import in_two_parts
from headstart.backbones.text_encoder import TextEncoder
from headstart.caching.fingerprint import of_prefix
from headstart.data.samples import Samples
from headstart.errors import UsageError
from headstart.inputs.text.files import Texts, digest
from headstart.inputs.text.preprocess import TextPreprocess

TEXTS = ["a superb film", "the actor was very awful and the ending is quite a scene", "music"]


def batch(net):
    return net.preprocess.collate([net.preprocess(text) for text in TEXTS])


@pytest.fixture
def folder(tmp_path):
    """A model with weights, as the hub has it."""
    place = tiny_text.write_model(tmp_path / "model")
    torch.manual_seed(0)
    net = tiny_text.backbone().net
    safetensors.torch.save_file({f"bert.{k}": v for k, v in net.state_dict().items()}, place / "model.safetensors")
    return place


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_padding_changes_nothing(pooling):
    net = tiny_text.backbone(pooling=pooling)
    together = net(batch(net))
    for row, text in zip(together, TEXTS, strict=True):
        assert torch.allclose(row, net(net.preprocess.collate([net.preprocess(text)]))[0], atol=1e-6)


def test_it_is_cut_behind_each_layer_to_the_bit_and_padding_is_zero():
    net = tiny_text.backbone()
    inputs = batch(net)
    whole, padding = net(inputs), inputs == 0
    assert [group.name for group in net.layer_groups()] == ["stem", "layer.0", "layer.1"]
    for groups in (1, 2, 3):
        prefix, rest = in_two_parts(net, groups)
        between = prefix(inputs)
        assert torch.equal(rest(between), whole)
        if groups < 3:
            assert not between[padding].any()
            assert between[~padding].any(dim=1).all()


KINDS = {
    "bert": {}, "roberta": {}, "electra": {"embedding_size": 8},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "mpnet": {}, "deberta-v2": {}, "albert": {"embedding_size": 16},
    "modernbert": {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_transformers_computes(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 64, "max_position_embeddings": 40}
    if kind != "distilbert":
        sizes |= {
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **sizes | KINDS[kind])
    with_head = transformers.AutoModelForMaskedLM.from_config(config).eval()
    with_head.save_pretrained(tmp_path)
    theirs = with_head.base_model
    (tmp_path / "tokenizer.json").write_text(tiny_text.tokenizer().to_str())
    ours = TextEncoder(str(tmp_path)).eval()
    assert isinstance(ours.net, Bert) == (kind in ("bert", "roberta", "electra", "distilbert"))
    tokens = torch.randint(5, 40, (3, 12))
    tokens[0, 7:] = tokens[1, 3:] = ours.pad
    mask = tokens.ne(ours.pad)
    expected = theirs(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    assert torch.allclose(ours.net(tokens)[mask], expected[mask], atol=2e-6)
    assert torch.allclose(ours(tokens)[2], expected[2].mean(dim=0), atol=2e-6)


@pytest.mark.parametrize("kind", ["modernbert", "mpnet"])
def test_a_network_of_transformers_is_saved_as_plain_data_and_built_again(kind, tmp_path):
    """As by Hydra, from the config in a checkpoint, and saved a second time."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.AutoConfig.for_model(kind, **sizes | KINDS[kind], intermediate_size=32)
    config.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(tiny_text.tokenizer().to_str())
    first = TextEncoder(str(tmp_path), weights=None)
    saved = OmegaConf.create({"_target_": f"{TextEncoder.__module__}.TextEncoder", "name": "gone", "weights": None})
    again = instantiate(saved, **json.loads(json.dumps(first.rebuild)))
    assert again.rebuild == json.loads(json.dumps(first.rebuild))
    assert not any(OmegaConf.is_config(value) for value in again.rebuild["architecture"].values())


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_received_architecture_does_not_choose_code_or_precision(key, tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.AutoConfig.for_model("mpnet", **sizes, intermediate_size=32).to_dict()
    config |= {key: "someone/kernel", "dtype": "bfloat16", "auto_map": {"AutoModel": "someone/code--x.Y"}}
    net = TextEncoder("x/y", weights=None, architecture=config)
    assert next(net.parameters()).dtype == torch.float32
    assert "someone" not in json.dumps(net.rebuild)


def test_a_tokenizer_of_another_model_is_refused(folder):
    config = tiny_text.ARCHITECTURE | {"vocab_size": 20}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"its network knows 20: tokenizer\.json and "):
        TextEncoder(str(folder), weights=None)


def test_weights_come_from_a_folder_a_file_and_an_earlier_backbone(folder, tmp_path):
    first = TextEncoder(str(folder))
    assert first.pretrained
    again = TextEncoder(str(folder), weights=str(folder / "model.safetensors"))
    torch.save({f"backbone.{k}": v for k, v in first.state_dict().items()}, tmp_path / "own.pt")
    own = TextEncoder(str(folder), weights=str(tmp_path / "own.pt"))
    for other in (again, own):
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert not TextEncoder(str(folder), weights=None).pretrained


def test_a_checkpoint_needs_no_folder(folder):
    first = TextEncoder(str(folder), max_length=7)
    built = TextEncoder("gone/away", weights=None, max_length=7, **json.loads(json.dumps(first.rebuild)))
    built.load_state_dict(first.state_dict())
    tokens = batch(first)
    assert torch.equal(first.eval()(tokens), built.eval()(tokens))


def fingerprint(net, preprocess):
    return of_prefix(net, preprocess, Samples(["a"], [0], ["x"], Texts(["a"]), [digest("a")]), torch.device("cpu"))


@pytest.mark.parametrize(("width", "num_train", "is_small"), [(16, 500, False), (16, 501, True), (400, 501, False)])
def test_only_small_encoders_and_many_texts_get_larger_steps(width, num_train, is_small, folder):
    net = TextEncoder(str(folder))
    net.num_features = width
    expected = {"optimizer.lr": 1e-3, "data.batch_size": 16} if is_small else {"optimizer.lr": 5e-4}
    assert {each.key: each.value for each in net.suggest(num_train)} == expected


def test_cached_rows_are_found_again_wherever_the_weights_came_from(folder):
    """Rows of a training run serve its evaluation, which builds the network from the checkpoint."""
    first = TextEncoder(str(folder))
    again = TextEncoder("gone/away", weights=None, **json.loads(json.dumps(first.rebuild)))
    again.load_state_dict(first.state_dict())
    again.pretrained = first.pretrained
    assert fingerprint(first, first.preprocess) == fingerprint(again, first.preprocess), "before it has a tokenizer"
    again.preprocess = first.preprocess
    assert fingerprint(first, first.preprocess) == fingerprint(again, first.preprocess)


def test_rows_of_a_network_of_transformers_are_found_by_the_next_run(folder):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.AutoConfig.for_model("mpnet", **sizes, intermediate_size=32)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    first, again = TextEncoder(str(folder)), TextEncoder(str(folder))
    assert fingerprint(first, first.preprocess) == fingerprint(again, first.preprocess)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "men"}, r"model.pooling=men does not exist, did you mean"),
        ({"max_length": 25}, "give a number of tokens from 4 to 24"),
        ({"max_length": 2}, "give a number of tokens from 4 to 24"),
        ({"weights": "BEST"}, "give DEFAULT for the published ones, the path of a file"),
        ({"weights": "no/such/file.pt"}, "there is no file"),
    ],
)
def test_mistakes_are_told(options, message, folder):
    with pytest.raises(UsageError, match=message):
        TextEncoder(str(folder), **options)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("config.json", "it has no config.json"), ("model.safetensors", "it has no model.safetensors")],
)
def test_a_folder_without_a_file_is_told(missing, message, folder):
    (folder / missing).unlink()
    with pytest.raises(UsageError, match=message):
        TextEncoder(str(folder))


def test_a_folder_that_does_not_exist_is_told(folder):
    with pytest.raises(UsageError, match=r"there is no folder.*did you mean"):
        TextEncoder(str(folder.with_name("modle")))


def test_weights_of_another_size_are_told(folder):
    config = tiny_text.ARCHITECTURE | {"hidden_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="do not fit this network"):
        TextEncoder(str(folder))


def test_roberta_counts_positions_from_behind_its_padding_token():
    config = tiny_text.ARCHITECTURE | {"model_type": "roberta", "pad_token_id": 1}
    sizes = Architecture.of(config)
    assert (sizes.position_offset, sizes.longest) == (2, 22)


def test_updates_of_low_rank_are_in_every_linear_layer(folder):
    net = TextEncoder(str(folder), lora_rank=2)
    named = [name for name, _ in net.named_parameters() if name.endswith(".0.up")]
    assert len(named) == 2 * 6


@pytest.mark.parametrize("kind", ["timm_wrapper", "vit", "no_such_kind"])
def test_other_networks_than_encoders_of_texts_are_refused(kind):
    pytest.importorskip("transformers")
    architecture = {"model_type": kind, "architecture": "hf-hub:someone/weights", "pad_token_id": 0}
    with pytest.raises(UsageError, match=f"model_type='{kind}', which is no encoder of texts"):
        TextEncoder("any", weights=None, architecture=architecture)


def test_no_part_of_a_config_names_another_network():
    part = {"model_type": "timm_wrapper", "backbone": "x", "use_timm_backbone": True, "_name_or_path": "y", "size": 3}
    assert any_encoder._taken({"hidden_size": 8, "backbone_config": part, "encoder": part, "parts": [part]}) == {
        "hidden_size": 8, "encoder": {"size": 3}, "parts": [{"size": 3}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"vocab_size": 10**12}, "vocab_size=1000000000000: give a whole number from 1 to 2,000,000"),
        ({"hidden_size": 10**9}, "hidden_size=1000000000: give"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers=1000000: give"),
        ({"max_position_embeddings": 10**11}, "max_position_embeddings=100000000000: give"),
        ({"intermediate_size": "32"}, "intermediate_size=32: give a whole number"),
        ({"hidden_size": 0}, "hidden_size=0: give a whole number from 1"),
        ({"num_attention_heads": 0}, "num_attention_heads=0: give"),
        ({"hidden_size": 16_000, "num_hidden_layers": 200, "vocab_size": 10**6}, "parameters, at most 3,000,000,000"),
        ({"hidden_dropout_prob": 2}, "hidden_dropout_prob=2: give a number from 0 to 1"),
        ({"layer_norm_eps": "\x1b[2J"}, r"layer_norm_eps=\?\[2J: give a number"),
        ({"pad_token_id": [0]}, r"pad_token_id=\[0\]: give the number of a token"),
    ],
)
def test_sizes_that_would_fill_the_memory_are_refused_before_anything_is_built(sizes, message, folder, monkeypatch):
    monkeypatch.setattr("headstart.backbones.text_encoder.Bert", lambda *_: pytest.fail("a network was built"))
    (folder / "config.json").write_text(json.dumps(tiny_text.ARCHITECTURE | sizes))
    with pytest.raises(UsageError, match=f"its config.json cannot be used: .*{message}"):
        TextEncoder(str(folder), weights=None)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b"1" * 5000, b'"x"'])
def test_files_of_a_model_that_hold_something_else_are_refused(file, content, folder):
    (folder / file).write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read"):
        TextEncoder(str(folder), weights=None)


def test_a_huge_file_of_a_model_is_refused_before_it_is_read(folder):
    os.truncate(folder / "tokenizer.json", 10**11)
    with pytest.raises(UsageError, match=r"tokenizer\.json is larger than 100 MB"):
        TextEncoder(str(folder), weights=None)


def numbered(change) -> str:
    content = json.loads(tiny_text.tokenizer().to_str())
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    "change",
    [lambda c: c["model"]["vocab"].update(good=10**6), lambda c: c["post_processor"].update(sep=["[SEP]", 10**6])],
    ids=["a word", "the token at the end"],
)
def test_tokens_that_the_network_does_not_know_are_refused(change, folder):
    """In a folder, and in a checkpoint, which has its own preprocessing."""
    (folder / "tokenizer.json").write_text(numbered(change))
    with pytest.raises(
        UsageError, match=r"numbers tokens up to 1,000,000, its network knows \d+: tokenizer\.json and "
    ):
        TextEncoder(str(folder), weights=None)
    encoder = tiny_text.backbone()
    with pytest.raises(UsageError, match="numbers tokens up to 1,000,000"):
        encoder.preprocess = TextPreprocess(numbered(change), 6)


def test_a_preprocessing_that_gives_more_than_the_network_takes_is_refused():
    encoder, tokenizer = tiny_text.backbone(), tiny_text.tokenizer().to_str()
    with pytest.raises(UsageError, match="gives up to 25 tokens, its network takes 24"):
        encoder.preprocess = TextPreprocess(tokenizer, 25)
    with pytest.raises(UsageError, match="numbers tokens up to 5,000"):
        encoder.preprocess = TextPreprocess(tokenizer, 24, pad=5000)


MPNET = {"model_type": "mpnet", "pad_token_id": 0, "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2,
         "num_attention_heads": 2, "intermediate_size": 32}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 10**9}, "vocab_size=1000000000 is above 10,000,000"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers=1000000 is above 1,000"),
        ({"hidden_size": "x"}, "cannot build it"),
        ({"model_type": {"a": 1}}, "no encoder of texts"),
    ],
)
def test_an_encoder_that_would_fill_the_memory_is_refused_before_it_is_built(settings, message):
    pytest.importorskip("transformers")
    with pytest.raises(UsageError, match=message):
        TextEncoder("any", weights=None, architecture=MPNET | settings)


def test_an_encoder_larger_than_the_memory_is_refused(monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(any_encoder, "most_in_memory", lambda: 1000)
    with pytest.raises(UsageError, match="the network has more than 1,000 parameters"):
        TextEncoder("any", weights=None, architecture=MPNET)


def test_settings_about_classes_are_not_used():
    pytest.importorskip("transformers")
    net = TextEncoder("any", weights=None, architecture=MPNET | {"num_labels": 10**9})
    assert "num_labels" not in net.architecture
