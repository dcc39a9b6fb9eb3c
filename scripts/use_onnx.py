"""Classifies pictures with onnxruntime, numpy and Pillow: `python use_onnx.py best.onnx photos/*.jpg`.

An example to copy, together with `read_picture.py`, into your own program. `python src/export.py run=<run> format=onnx`
makes the file `best.onnx`, which contains class names and preprocessing. Writes `file,class,probability,error`; if a
picture may have several labels, only the most probable one.
"""

import csv
import json
import sys

import onnxruntime
from read_picture import read_picture


def main(model: str, *files: str) -> None:
    """Writes one line per file."""
    session = onnxruntime.InferenceSession(model)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["headstart"])
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["file", "class", "probability", "error"])
    for file in files:
        try:
            picture = read_picture(file, facts["preprocess"], resize=facts["resize"] == "outside")
        except (OSError, ValueError) as error:
            rows.writerow([file, "", "", error])
            continue
        # a batch of one; a batch may have several pictures of the same size
        probabilities = session.run(["probabilities"], {"pictures": picture[None]})[0][0]
        best = probabilities.argmax()
        rows.writerow([file, facts["classes"][best], f"{probabilities[best]:.6g}", ""])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} <model.onnx> <picture> ...")
    main(*sys.argv[1:])
