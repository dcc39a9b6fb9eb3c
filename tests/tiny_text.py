"""A random text encoder of a few kilobytes, its tokenizer, and reviews in which one word decides the class.

In a test: `backbone()` for a network in memory. For a run: `train(on_reviews(quick("optimizer.lr=0.01"), tmp_path))`
with `HEADSTART_TRUST=tiny_text` in the environment.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason='needs pip install -e ".[text]"')
from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from headstart.backbones.text_encoder import TextEncoder
from headstart.data.module import DataModule
from headstart.data.samples import Samples
from headstart.inputs.text.files import Texts, digest
from headstart.inputs.text.preprocess import TextPreprocess

CLASSES = ["bad", "good"]
DECISIVE = {"bad": "awful", "good": "superb"}
"""Class -> the word that each of its texts has, and no text of the other class."""
PLAIN = [
    "the", "a", "film", "story", "actor", "scene", "music", "plot", "ending", "camera",
    "is", "was", "has", "with", "and", "but", "of", "it", "very", "quite",
]  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LONGEST = 24
ARCHITECTURE: dict[str, Any] = {
    "model_type": "bert", "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": LONGEST, "type_vocab_size": 2, "pad_token_id": 0,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def tokenizer() -> Tokenizer:
    """Word pieces in lower case, with `[CLS]` and `[SEP]`; `films` is two tokens, `film` and `##s`."""
    words = [*SPECIAL, *PLAIN, *DECISIVE.values(), "##s", "-", ",", ".", "!", "<", ">", "/", "b", "##b"]
    made = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(SPECIAL)
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def backbone(**options: Any) -> TextEncoder:
    """The encoder with random weights and its preprocessing, in eval mode.

    Args:
        options: of `TextEncoder`.
    """
    made = TextEncoder("tiny/text", weights=None, architecture=ARCHITECTURE, **options)
    made.preprocess = TextPreprocess(tokenizer().to_str(), made.max_length, made.pad)
    return made.eval()


def write_model(folder: Path) -> Path:
    """Writes the folder that `model.name=<folder> model.weights=null` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(ARCHITECTURE))
    (folder / "tokenizer.json").write_text(tokenizer().to_str())
    return folder


def on_reviews(cfg: DictConfig, folder: Path, **options: Any) -> DictConfig:
    """The config of a run on generated pictures, changed to the encoder and the reviews.

    Args:
        cfg: of the fixture `quick`.
        folder: where the model is written.
        options: of `Reviews`.
    """
    data = OmegaConf.to_container(cfg.data)
    for key in ("num_samples", "num_classes", "image_size", "multi_label", "numbers"):
        del data[key]
    cfg.data = data | {"_target_": "tiny_text.Reviews", **options}
    cfg.model = {
        "_target_": "headstart.backbones.text_encoder.TextEncoder", "name": str(write_model(folder / "tiny_model")),
        "weights": None, "max_length": None, "pooling": "mean", "lora_rank": None, "architecture": None,
    }  # fmt: skip
    return cfg


def review(seed: int, name: str) -> str:
    """Some plain words around the decisive word of a class."""
    generator = random.Random(seed)
    words = generator.choices(PLAIN, k=generator.randint(3, 12))
    words.insert(generator.randrange(len(words) + 1), DECISIVE[name])
    return " ".join(words).capitalize() + "."


class Reviews(DataModule):
    """Made-up reviews, the classes in turn.

    Args:
        num_texts: of train; val and test are held out.
        wrong: number of reviews whose label is wrong, at the beginning.
        options: of `DataModule`.
    """

    def __init__(self, *, num_texts: int = 80, wrong: int = 0, **options: Any):
        super().__init__(**options)
        self.num_texts, self.wrong = num_texts, wrong

    def dataset(self, split: str) -> Samples | None:
        """All reviews as train."""
        if split != "train":
            return None
        places = range(self.num_texts)
        texts = [review(place, CLASSES[place % 2]) for place in places]
        targets = [(place + (place < self.wrong)) % 2 for place in places]
        return Samples(
            [f"{place:03d}" for place in places], targets, list(CLASSES), Texts(texts), list(map(digest, texts))
        )
