"""Masked tokens: how many, which ones, what they become, and that the choice can be repeated."""

import pytest
import tiny_text
import torch

from headstart.errors import UsageError
from headstart.inputs.text.masking import NO_TARGET, MaskedText

PAD, UNKNOWN, START, END, MASK = range(5)
TEXT = "the film was very superb and the ending of the story has music"


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_text.tokenizer().to_str()


def same(first, second):
    return all(map(torch.equal, first, second))


@pytest.fixture
def made(tokenizer):
    return lambda **options: MaskedText(tokenizer, max_length=tiny_text.LONGEST, **options)


def test_a_fraction_is_chosen_and_most_of_it_is_masked(made):
    torch.manual_seed(0)
    tokens = torch.randint(5, 29, (20_000,))
    given, targets = made(fraction=0.15).masked(tokens)
    chosen = targets != NO_TARGET
    assert chosen.sum() == 3000
    assert torch.equal(targets[chosen], tokens[chosen])
    assert torch.equal(given[~chosen], tokens[~chosen])
    masked = (given[chosen] == MASK).float().mean().item()
    kept = (given[chosen] == tokens[chosen]).float().mean().item()
    assert masked == pytest.approx(0.8, abs=0.03)  # four standard errors
    ordinary = tiny_text.tokenizer().get_vocab_size() - len(tiny_text.SPECIAL)
    assert kept == pytest.approx(0.1 + 0.1 / ordinary, abs=0.025)


def test_special_tokens_and_padding_are_neither_chosen_nor_made(made):
    preprocess = made(fraction=0.9)
    for _ in range(50):
        batch = preprocess.collate([preprocess(TEXT), preprocess("a film")])
        tokens, targets = batch["tokens"], batch["targets"]
        assert tokens.shape == targets.shape
        assert tokens[:, 0].tolist() == [START, START]
        assert tokens[0, -1] == END
        assert (tokens[1] == PAD).sum() == tokens.shape[1] - 4
        assert not torch.isin(targets, torch.tensor([PAD, UNKNOWN, START, END, MASK])).any()
        assert not torch.isin(tokens[targets >= 0], torch.tensor([PAD, UNKNOWN, START, END])).any()


def test_with_a_seed_the_masks_depend_on_seed_and_text_only(made):
    fixed = made(seed=3)
    first, state = fixed(TEXT), torch.get_rng_state()
    torch.rand(5)
    assert same(fixed(TEXT), first)
    torch.set_rng_state(state)
    fixed(TEXT)
    assert torch.equal(torch.get_rng_state(), state)
    assert any(not same(made(seed=seed)(TEXT), first) for seed in (4, 5, 6))


def test_without_a_seed_they_come_from_the_generator_of_torch(made):
    new = made()
    torch.manual_seed(1)
    first, second = new(TEXT), new(TEXT)
    torch.manual_seed(1)
    assert same(new(TEXT), first)
    assert not same(first, second)


def test_a_short_text_has_one_masked_token_and_one_of_special_tokens_none(made):
    assert (made()("film")[1] >= 0).sum() == 1
    assert (made()("unknown words")[1] >= 0).sum() == 0


def test_a_tokenizer_without_mask_token_and_a_wrong_fraction_are_refused(made, tokenizer):
    with pytest.raises(UsageError, match=r"no mask token \(\[MASK\] or <mask>\).*model=minilm"):
        MaskedText(tokenizer.replace("[MASK]", "[OTHER]"), max_length=20)
    assert MaskedText(tokenizer.replace("[MASK]", "<mask>"), max_length=20)(TEXT)[1].any()
    with pytest.raises(UsageError, match=r"task.mask_fraction=1.5"):
        made(fraction=1.5)
