"""Tokenizers from strangers: public models work, and a file that would fill the memory or hang is refused."""

import base64
import json

import pytest
import tiny_text
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from headstart.errors import UsageError
from headstart.inputs.text.preprocess import TextPreprocess
from headstart.inputs.text.tokenizer_file import MOST_CHARACTERS, is_simple

SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}


def replace(before: str, after: str, kind: str = "String") -> dict:
    """A step without its kind, which the library finds out by the settings."""
    return {"pattern": {kind: before}, "content": after}


def chain(*steps: dict) -> dict:
    return {"normalizer": {"type": "Sequence", "normalizers": list(steps)}}


def changed(**parts) -> str:
    """A tokenizer with other parts; parts of the model have names that begin with `model_`."""
    content = json.loads(tiny_text.tokenizer().to_str())
    for name, part in parts.items():
        into, key = (content["model"], name.removeprefix("model_")) if name.startswith("model_") else (content, name)
        into[key] = part
    return json.dumps(content)


def table_of(text: str) -> str:
    """A table of replacements whose longest one is this text."""
    return base64.b64encode((4).to_bytes(4, "little") + bytes(4) + text.encode() + b"\0").decode()


REFUSED = {
    "a text is doubled 40 times": (chain(*[replace("g", "gg")] * 40), "make a text more than 50 times longer"),
    "a character becomes a long text": (chain(replace("", "g" * 900), replace("g", "gg")), "50 times longer"),
    "a pattern is doubled": (chain(*[replace("g", "gg", "Regex")] * 40), "50 times longer"),
    "bytes are doubled": (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False,
                                                                 "trim_offsets": True, "use_regex": True}] * 40}},
        "50 times longer",
    ),
    "a table": (chain({"type": "Precompiled", "precompiled_charsmap": table_of("x" * 2000)}), "50 times longer"),
    "a long beginning": (chain({"type": "Prepend", "prepend": "x" * 10**5}), "'prepend' has 100,000 characters"),
    "very many steps": (chain(*[{"type": "Lowercase"}] * 1000), "steps, at most 200"),
    "a long word": ({"model_max_input_chars_per_word": 10**9}, "max_input_chars_per_word is 1000000000, at most 500"),
    "a long beginning of pieces": ({"model_continuing_subword_prefix": "#" * 10**5}, "has 100,000 characters"),
    "a slow pattern": ({"pre_tokenizer": SPLIT | {"pattern": {"Regex": "(a+)+$"}}}, r"'\(a\+\)\+\$' is so complex"),
    "a broken table": (chain({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "Cannot parse precompiled"),
    "broken pairs": ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}}, "out of range"),
    "no model": ({"model": []}, "data did not match"),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "message"), REFUSED.values(), ids=REFUSED)
def test_a_tokenizer_that_would_fill_the_memory_hang_or_panic_is_refused(parts, message):
    with pytest.raises(UsageError, match=f"the tokenizer cannot be read: .*{message}.*Give a model with another"):
        TextPreprocess(changed(**parts), 6)("a film")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"model": 1, "model": 2}', "[]", "\0", f'{{"a": {"1" * 5000}}}'])
def test_json_that_describes_no_tokenizer_is_refused(content):
    with pytest.raises(UsageError, match="the tokenizer cannot be read"):
        TextPreprocess(content, 6)("a")


def test_a_huge_file_is_refused():
    with pytest.raises(UsageError, match="it has 50,000,001 characters, at most 50,000,000"):
        TextPreprocess(" " * (MOST_CHARACTERS + 1), 6)("a")


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},  # the library panics
        {"model_unk_token": "[NONE]"},
    ],
)
def test_a_tokenizer_that_fails_on_a_text_is_named_as_the_cause(parts):
    preprocess = TextPreprocess(changed(**parts), 6)
    for use in (preprocess, lambda text: preprocess.lengths([text])):
        with pytest.raises(UsageError, match="the tokenizer fails on a text: "):
            use("zebra")


def test_tokens_at_the_ends_leave_room_for_the_text():
    """Otherwise the library does not cut the text at all."""
    ends = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * 9 + [{"Sequence": {"id": "A", "type_id": 0}}]
    token = {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}}
    both = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]
    steps = {"type": "TemplateProcessing", "single": ends, "pair": both, "special_tokens": token}
    with pytest.raises(UsageError, match="cannot cut texts to 6 tokens: it adds 9 special tokens to each text"):
        TextPreprocess(changed(post_processor=steps), 6)("a")
    assert len(TextPreprocess(changed(post_processor=steps), 12)("a film " * 10)) == 12


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+", "(a|a)*b", "(a|a){23}", "(?:a|b)+", "a{1,5}+", "a**", "a*a*b", "(a*a*)?b", r"a*\w+(?:b)",
        "a?a?a?a?a?b", "(a|a)" * 5, r"(a)\1", r"\g<0>", "(?#[)(a+)+(?#])",
        r"\c[(a+)+]", "[](a+)+]", "(?x)#[\n(a+)+#]", "(*FAIL)", "[a", "(a", "a)",
        "a" * 1001, r"\X+\R", "|".join(["a+"] * 30),
    ],
)  # fmt: skip
def test_patterns_that_may_need_very_long(pattern):
    assert not is_simple(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        " {2,}", r"\A +| +\z", r"\s{2,}|[\n\r\t]", r"^▁+$", r"(?<!\n)\n(?!\n)", "[一-龥]+",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{M}]*[\p{Ll}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|\s+",
        r" ?[^(\s|[.,!?…。])]+", r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+| ?[\p{P}\p{S}]+[\r\n]*""",
    ],
)  # fmt: skip
def test_patterns_of_public_models(pattern):
    assert is_simple(pattern)
    assert Regex(pattern), "the library knows it"


def kinds() -> dict[str, Tokenizer]:
    """Tokenizers with the parts that public models have."""
    pieces = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>", "▁", "f", "i", "l", "m", "▁film")]
    found = {name: Tokenizer(models.Unigram(pieces, 3)) for name in ("xlm-roberta", "albert", "deberta")}
    spaces, ends = normalizers.Replace(Regex(" {2,}"), " "), [("<s>", 0), ("</s>", 2)]
    found["xlm-roberta"].normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    found["albert"].normalizer = normalizers.Sequence([
        *(normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD()),
        *(normalizers.StripAccents(), normalizers.Lowercase(), spaces),
    ])  # fmt: skip
    found["deberta"].normalizer = normalizers.Sequence([
        normalizers.Strip(), normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
    ])  # fmt: skip
    for each in found.values():
        each.pre_tokenizer, each.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        each.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "fi"]
    for name in ("roberta", "modernbert"):
        found[name] = Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, [("f", "i")]))
        found[name].pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        found[name].decoder = decoders.ByteLevel()
    found["modernbert"].normalizer = normalizers.NFC()
    found["roberta"].post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    found["bert"] = Tokenizer(models.WordPiece({"[UNK]": 0, "film": 1}, unk_token="[UNK]"))
    found["bert"].normalizer = normalizers.BertNormalizer()
    found["bert"].pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return found


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "xlm-roberta", "albert", "deberta"])
def test_tokenizers_of_public_models_are_built(kind):
    made = kinds()[kind]
    assert TextPreprocess(made.to_str(), 16)("film").tolist() == made.encode("film").ids


def test_a_table_of_characters_counts_by_its_longest_text():
    """The usual table of Unicode has 18 characters."""
    from headstart.inputs.text.tokenizer_file import _growth

    assert _growth({"precompiled_charsmap": table_of("صلى الله عليه وسلم")}) == 18
