"""Encoders of texts from the Hugging Face hub, from a folder, or from an earlier run."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.backbones.bert import ACTIVATIONS, NOT_IN_THE_ENCODER, Architecture, Bert, renamed, token_mask
from headstart.backbones.hub import ModelFiles
from headstart.backbones.low_rank import add_low_rank, merged
from headstart.backbones.pretraining_head import head_of_pretraining
from headstart.backbones.weights import StateDict, load_state_dict_file, load_strictly, looks_like_path, read_weights
from headstart.errors import UsageError, listed, nearest
from headstart.heads.language_model import LanguageModelHead
from headstart.inputs.base import Setting
from headstart.inputs.text.masking import MaskedText
from headstart.inputs.text.preprocess import SHORTEST, TextPreprocess
from headstart.inputs.transforms import SplitTransform

log = logging.getLogger(__name__)

POOLING = ("mean", "cls", "max")
USUAL_LENGTH = 256
"""`max_length` in tokens, if the network takes so many; texts are padded only to the longest of their batch."""
LEARNING_RATE, LEARNING_RATE_OF_SMALL = 5e-4, 1e-3
"""Of the head, with `finetuning=auto`; that of the encoder is `task.backbone_lr_ratio` times this one."""
BATCH_OF_SMALL = 16
SMALL = 384
"""Most features of a small encoder, such as MiniLM. Compact BERTs were fine-tuned with learning rates of up to 3e-4
(Turc et al. 2019, https://arxiv.org/abs/1908.08962, their model card); BERT itself with up to 5e-5."""


class TextEncoder(Backbone):
    """Tokens, int64 `(batch, length)` -> `(batch, hidden_size)`, pooled over the tokens of each text.

    Networks like BERT are built here (`bert.py`) and can be cut behind each layer; all others by `transformers`.

    Args:
        name: of an encoder on the Hugging Face hub, or a folder with `config.json`, `tokenizer.json` and
            `model.safetensors`.
        weights: `DEFAULT`: the published ones, downloaded once; a file (.safetensors, .pt, .bin); a checkpoint or the
            folder of an earlier run; None: random weights.
        max_length: largest number of tokens per text; None: 256, or what the network takes.
        pooling: `mean` of the tokens, the first token (`cls`), or the largest value of each feature (`max`).
        lora_rank: rank of the low-rank updates for `finetuning=lora`; None: no updates.
        architecture: the settings of the network, from a checkpoint; then `name` is not read.

    Raises:
        UsageError: an unknown name, pooling or length; files that are missing, cannot be read or do not fit.
    """

    variable_length = True
    # the same weights from another place give the same rows; the preprocessing has a fingerprint of its own
    not_in_fingerprint = frozenset({"source", "longest", "preprocess"})

    def __init__(
        self,
        name: str,
        weights: str | None = "DEFAULT",
        max_length: int | None = None,
        pooling: str = "mean",
        lora_rank: int | None = None,
        architecture: dict[str, Any] | None = None,
    ):
        super().__init__()
        if pooling not in POOLING:
            raise UsageError(
                f"model.pooling={pooling} does not exist{nearest(pooling, POOLING) or '.'} Give {listed(POOLING)}"
            )
        files = ModelFiles(name)
        self.pooling = pooling
        given = files.config() if architecture is None else _plain(architecture)
        self.net, self.architecture, self.num_features, self.longest = _network(given, name)
        self.pad = self.architecture.get("pad_token_id") or 0
        if self.longest < SHORTEST:
            raise UsageError(f"{name} takes at most {self.longest} tokens: give the name of another encoder")
        if max_length is not None and not SHORTEST <= max_length <= self.longest:
            raise UsageError(
                f"model.max_length={max_length}: give a number of tokens from {SHORTEST} to {self.longest}, the most "
                f"that {name} takes"
            )
        self.max_length = max_length or min(USUAL_LENGTH, self.longest)
        if architecture is None:  # a checkpoint has its own preprocessing
            tokenizer = files.tokenizer()
            try:
                self.preprocess = TextPreprocess(tokenizer, self.max_length, self.pad)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error
        self.blocks = [f"net.{block}" for block in _blocks(self.net)]
        self.pretrained = weights is not None
        self.source = None if weights is None else (files, weights)
        if weights is not None:
            self._load(files, weights)
        if lora_rank is not None:
            add_low_rank(self.net, lora_rank)

    @property
    def token_embedding(self) -> nn.Module:
        """The embedding of the tokens."""
        return self.net.token_embedding

    @property
    def preprocess(self) -> TextPreprocess:
        """Turns texts into tokens that the network knows.

        Raises:
            UsageError: when it is set, and it would give others.
        """
        if "preprocess" not in vars(self):
            raise AttributeError("preprocess")
        return vars(self)["preprocess"]

    @preprocess.setter
    def preprocess(self, preprocess: TextPreprocess) -> None:
        known, largest = self.token_embedding.num_embeddings, preprocess.largest_token
        if max(largest, preprocess.pad) >= known:
            raise UsageError(
                f"its tokenizer numbers tokens up to {max(largest, preprocess.pad):,}, its network knows {known:,}: "
                "tokenizer.json and config.json are of different models"
            )
        if preprocess.max_length > self.longest:
            raise UsageError(
                f"its preprocessing gives up to {preprocess.max_length:,} tokens, its network takes {self.longest:,}: "
                "they are of different models"
            )
        vars(self)["preprocess"] = preprocess

    def suggest(self, num_train: int) -> list[Setting]:
        """A learning rate for texts; for small encoders and many texts, more and larger steps (docs/texts.md)."""
        if self.num_features > SMALL or num_train <= TextPreprocess.contrastive_up_to:
            return [
                Setting("optimizer.lr", LEARNING_RATE, "encoders of texts are fine-tuned with lower learning rates")
            ]
        return [
            Setting("optimizer.lr", LEARNING_RATE_OF_SMALL, "with many texts, a small encoder learns more from it"),
            Setting("data.batch_size", BATCH_OF_SMALL, "the same, from more steps"),
        ]

    def _load(self, files: ModelFiles, weights: str) -> None:
        state = _state(files, weights)
        if state and all(key.startswith("net.") for key in state):  # of an earlier run
            state = StateDict({key.removeprefix("net."): tensor for key, tensor in merged(state).items()})
            load_strictly(self.net, state, str(weights))
        elif isinstance(self.net, Bert):
            load_strictly(self.net, StateDict(renamed(state)), str(weights), ignore=NOT_IN_THE_ENCODER)
        else:
            self.net.load_published(state)

    @property
    def rebuild(self) -> dict[str, Any]:
        """As `Backbone.rebuild`: the architecture, so that a checkpoint needs neither folder nor hub."""
        return {"architecture": self.architecture}

    def forward(self, inputs: Tensor) -> Tensor:
        """Tokens, filled up with the padding token at the end -> features `(batch, num_features)`."""
        return pooled(self.vectors(inputs), self.pooling)

    def vectors(self, tokens: Tensor) -> Tensor:
        """The same -> one vector per token, `(batch, length, num_features)`, zero at the padding."""
        return self.net(tokens)

    def masked(self, fraction: float, seed: int) -> tuple[SplitTransform, MaskedText]:
        """The preprocessing with a mask on a fraction of the tokens: a new one each time, and one that stays the same.

        Args:
            fraction: of the tokens of a text.
            seed: of the masks that stay the same.
        """
        new, fixed = (MaskedText(**asdict(self.preprocess), fraction=fraction, seed=each) for each in (None, seed))
        return SplitTransform(self.preprocess, new.masked), fixed

    def language_model_head(self) -> LanguageModelHead:
        """A head that predicts tokens, for `token_embedding`: from the file of the weights if it is there, else new."""
        vocabulary, width = self.token_embedding.weight.shape
        activation = ACTIVATIONS.get(self.architecture.get("hidden_act", "gelu"), nn.GELU)()
        head = LanguageModelHead(self.num_features, width, vocabulary, activation)
        if self.source is None:
            return head
        if known := head_of_pretraining(renamed(_state(*self.source, part="head"))):
            load_strictly(head, StateDict(known), f"{self.source[1]} (head of a language model)")
        log.info("the head of the language model %s", "comes from model.weights" if known else "is new")
        return head


def _state(files: ModelFiles, weights: str, part: str = "backbone") -> StateDict:
    """The tensors that `weights` names; `part`: as in `read_weights`."""
    if weights == "DEFAULT":
        return load_state_dict_file(files.weights())
    if looks_like_path(weights):
        return read_weights(weights, part)
    raise UsageError(
        f"model.weights={weights}: give DEFAULT for the published ones, the path of a file or of an earlier "
        "run, or null for random weights"
    )


def pooled(hidden: Tensor, pooling: str) -> Tensor:
    """One vector per token, `(batch, length, features)`, zero at the padding -> one per text, `(batch, features)`."""
    if pooling == "cls":
        return hidden[:, 0]
    is_token = token_mask(hidden)[..., None]
    if pooling == "max":
        return hidden.masked_fill(~is_token, -torch.inf).amax(dim=1)
    return hidden.sum(dim=1) / is_token.sum(dim=1).clamp_min(1)


def _network(config: Mapping[str, Any], name: str) -> tuple[nn.Module, dict[str, Any], int, int]:
    """The network with random weights; its settings; the length of its vectors; the most tokens that it takes."""
    try:
        sizes = Architecture.of(config)
    except ValueError as reason:
        from headstart.backbones.any_encoder import AnyEncoder

        net = AnyEncoder(config, name, str(reason))
        return net, net.settings, net.hidden_size, net.longest
    except TypeError as error:
        raise UsageError(f"{name}: its config.json cannot be used: {error}") from error
    return Bert(sizes), asdict(sizes) | {"model_type": config["model_type"]}, sizes.hidden_size, sizes.longest


def _plain(architecture: Any) -> dict[str, Any]:
    """The settings as plain data: Hydra gives them as a config, which other libraries do not accept."""
    return OmegaConf.to_container(architecture) if OmegaConf.is_config(architecture) else dict(architecture)


def _blocks(net: nn.Module) -> list[str]:
    """The layers: the longest list of modules in the network."""
    lists = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        return []
    name, layers = max(lists, key=lambda found: len(found[1]))
    return [f"{name}.{place}" for place in range(len(layers))]
