"""Classes of pictures with onnxruntime, numpy and Pillow alone: `python use_onnx.py best.onnx photos/*.jpg`.

An example to copy, with `read_picture.py` beside it, into a program of your own. The file `best.onnx` is what
`python src/export.py run=<run> format=onnx` made; class names and preprocessing are inside it. Writes
`file,class,probability,error`, for several labels a picture the most probable one.
"""

import csv
import json
import sys

import onnxruntime
from read_picture import read_picture


def main(model: str, *files: str) -> None:
    """Writes a line a file."""
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
        # a batch of one; several pictures may go together if they have one size
        probabilities = session.run(["probabilities"], {"pictures": picture[None]})[0][0]
        best = probabilities.argmax()
        rows.writerow([file, facts["classes"][best], f"{probabilities[best]:.6g}", ""])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} <model.onnx> <picture> ...")
    main(*sys.argv[1:])
