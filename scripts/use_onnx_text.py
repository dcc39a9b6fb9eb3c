"""Classifies texts with onnxruntime and tokenizers: `python use_onnx_text.py best.onnx < texts.txt`, one text per line.

An example to copy into your own program. `python src/export.py run=<run> format=onnx` makes the file `best.onnx`, which
holds class names and settings, and `best.onnx.tokenizer.json`. Writes `text,class,probability`; if a text may have
several labels, only the most probable one.
"""

import csv
import json
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


def main(model: str, batch_size: int = 32) -> None:
    """Writes one line per line of standard input."""
    session = onnxruntime.InferenceSession(model)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["headstart"])
    if "classes" not in facts:
        sys.exit(f"{model} predicts numbers; this example is for models that predict classes")
    tokenizer = Tokenizer.from_file(f"{model}.tokenizer.json")
    tokenizer.encode_special_tokens = True  # a text that contains "[SEP]" is an ordinary text
    tokenizer.no_padding()  # the file of a model may fill up all texts to one length
    tokenizer.enable_truncation(facts["preprocess"]["max_length"])
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["text", "class", "probability"])
    texts = [line.rstrip("\r\n") for line in sys.stdin]
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        tokens = [tokenizer.encode(text).ids for text in batch]
        padded = np.full((len(batch), max(map(len, tokens))), facts["preprocess"]["pad"], dtype=np.int64)
        for row, found in zip(padded, tokens, strict=True):
            row[: len(found)] = found
        probabilities = session.run(["probabilities"], {"tokens": padded})[0]
        for text, found in zip(batch, probabilities, strict=True):
            rows.writerow([text, facts["classes"][found.argmax()], f"{found.max():.6g}"])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} <model.onnx> < texts.txt")
    sys.stdin.reconfigure(encoding="utf-8", newline="\n")
    main(sys.argv[1])
