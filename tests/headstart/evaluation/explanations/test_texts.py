"""The weights of words, for networks in which one known word decides."""

import pytest
import torch
from tiny_text import CLASSES, DECISIVE, PLAIN, backbone, review, tokenizer
from torch import nn

from headstart.backbones.text_encoder import TextEncoder
from headstart.errors import UsageError
from headstart.evaluation.explanations.by_input import can_explain, explanation_for
from headstart.evaluation.explanations.texts import explain
from headstart.inputs.text.preprocess import TextPreprocess
from headstart.inputs.text.words import blanked, merged_into_words

pytest.importorskip("captum")


@pytest.fixture(scope="module")
def trained():
    """A network that has found the decisive words; texts without one, and masked words, are its class 2.

    As in pretraining, it has seen texts with masked words: they say nothing.
    """
    torch.manual_seed(0)
    encoder = backbone()
    network = nn.Sequential(encoder, nn.Linear(encoder.num_features, 3))
    mask, plain = encoder.preprocess.token_id(["[MASK]"]), encoder.preprocess("the film").tolist()[1]
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for step in range(60):
        targets = [place % 3 for place in range(18)]
        texts = [text_of(100 * step + place, target) for place, target in enumerate(targets)]
        batch = encoder.preprocess.collate([encoder.preprocess(text) for text in texts])
        hidden = (torch.rand(batch.shape) < 0.5) & (batch >= plain) & (batch < plain + len(PLAIN))
        loss = nn.functional.cross_entropy(network(batch.masked_fill(hidden, mask)), torch.tensor(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2
    return network.eval()


def text_of(seed, target):
    """A text of a class: 0 and 1 have their decisive word, 2 has none."""
    text = review(seed, CLASSES[target % 2])
    return text.lower().replace(DECISIVE[CLASSES[target % 2]], "film") if target == 2 else text


def random_network(outputs=2):
    torch.manual_seed(0)
    encoder = backbone()
    return spread(nn.Sequential(encoder, nn.Linear(16, outputs)))


def spread(network):
    """Larger random weights, so that the words make a difference."""
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data = torch.randn_like(parameter) / 3
    return network.eval()


def test_the_word_that_decides_has_the_largest_weight(trained):
    texts = [text_of(seed, seed % 2) for seed in range(5000, 5010)]
    found = explain(trained, trained[0], texts, [place % 2 for place in range(len(texts))])
    for place, (text, words) in enumerate(zip(texts, found, strict=True)):
        largest = max(words, key=lambda word: abs(word.weight))
        assert text[largest.start : largest.end].lower() == DECISIVE[CLASSES[place % 2]]
        assert largest.weight > 0


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_the_weights_add_up_to_what_the_words_change(outputs):
    network = random_network(outputs)
    preprocess = network[0].preprocess
    for text in ("The films, superb!", "awful", "it is what it is and very quite long " * 9):
        for chosen in range(max(outputs, 2)):
            (words,) = explain(network, network[0], [text], [chosen])
            with torch.no_grad():
                real, empty = (network(ids[None])[0] for ids in (preprocess(text), blanked(preprocess, text)))
            change = (real - empty)[0] * (2 * chosen - 1) if outputs == 1 else (real - empty)[chosen]
            assert sum(word.weight for word in words) == pytest.approx(change.item(), rel=0.05, abs=0.02)
            assert abs(change) > 0.01, "otherwise this test shows nothing"


def test_an_explanation_does_not_depend_on_the_texts_beside_it_and_changes_nothing(trained):
    parameters = {key: value.clone() for key, value in trained.state_dict().items()}
    short, long = review(1, "good"), review(2, "bad") + " " + review(3, "bad")
    together = explain(trained, trained[0], [short, long], [1, 1])
    assert explain(trained, trained[0], [short], [1])[0] == together[0]
    assert all(torch.equal(value, parameters[key]) for key, value in trained.state_dict().items())
    assert not any(module._forward_hooks for module in trained.modules())


def test_frozen_networks_are_explained_too(trained):
    text = review(7, "good")
    for parameter in trained.parameters():
        parameter.requires_grad = False
    (words,) = explain(trained, trained[0], [text], [1])
    for parameter in trained.parameters():
        parameter.requires_grad = True
    assert max(word.weight for word in words) > 0.1


def test_encoders_of_transformers_are_explained_too():
    pytest.importorskip("transformers")
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 32, "max_position_embeddings": 64}  # fmt: skip
    torch.manual_seed(0)
    encoder = TextEncoder("tiny/mpnet", weights=None, architecture={"model_type": "mpnet", "pad_token_id": 0, **sizes})
    encoder.preprocess = TextPreprocess(tokenizer().to_str(), 30)
    network = spread(nn.Sequential(encoder, nn.Linear(16, 2)))
    text = "the films was superb"
    (words,) = explain(network, encoder, [text], [1])
    with torch.no_grad():
        real, empty = (
            network(ids[None])[0, 1] for ids in (encoder.preprocess(text), blanked(encoder.preprocess, text))
        )
    assert sum(word.weight for word in words) == pytest.approx((real - empty).item(), rel=0.05, abs=0.02)


def test_tokens_are_merged_into_the_words_of_the_text():
    preprocess = backbone().preprocess
    text = "  Films, <b>superb</b>\n!"
    number = len(preprocess(text))
    found = merged_into_words(preprocess, text, [1.0] * number)
    assert [text[word.start : word.end] for word in found] == [
        "Films", ",", "<", "b", ">", "superb", "<", "/", "b", ">", "!",
    ]  # fmt: skip
    assert [word.weight for word in found] == [2.0] + [1.0] * 10, "`films` is two tokens"
    assert sum(word.weight for word in found) == number - 2, "the special tokens are left out"


def test_words_behind_the_longest_length_are_missing():
    preprocess = backbone(max_length=6).preprocess
    text = "the film is superb and quite long"
    found = merged_into_words(preprocess, text, [0.0] * 6)
    assert [text[word.start : word.end] for word in found] == ["the", "film", "is", "superb"]


def test_the_baseline_keeps_the_special_tokens_and_is_no_padding():
    preprocess = backbone().preprocess
    tokens, baseline = preprocess("the films"), blanked(preprocess, "the films")
    mask = preprocess.token_id(["[MASK]"])
    assert baseline.tolist() == [tokens[0], mask, mask, mask, tokens[-1]]
    assert mask != preprocess.pad


def test_a_tokenizer_without_a_blank_token_is_named(monkeypatch):
    monkeypatch.setattr("headstart.inputs.text.words.BLANKS", ("[NONE]",))
    network = random_network()
    assert not can_explain(network[0].preprocess)
    with pytest.raises(UsageError, match="explain needs a tokenizer with one of the tokens"):
        explain(network, network[0], ["the film"], [0])


def test_the_explanation_is_chosen_by_the_kind_of_input():
    from headstart.evaluation.explanations import by_input
    from headstart.inputs.images.preprocess import ImagePreprocess

    assert explanation_for(backbone().preprocess, "a text") is explain
    assert explanation_for(ImagePreprocess(16, 16), torch.zeros(3, 16, 16)) is by_input._explain_pictures
    assert can_explain(backbone().preprocess)
    assert can_explain(ImagePreprocess(16, 16))
    with pytest.raises(UsageError, match="explain works for pictures and texts, not for a picture of this model"):
        explanation_for(ImagePreprocess(16, 16), [1, 2])
