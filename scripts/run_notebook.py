"""Runs a notebook from its beginning, in a folder of its own; with --write, keeps the outputs in the notebook.

python scripts/run_notebook.py notebooks/first_steps.ipynb --write

Fails if a cell fails. Needs pip install -e ".[notebook]". Before the outputs are kept, the names of the folders are
replaced: they belong to this machine.
"""

import argparse
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

SECONDS = 300
"""Limit for a cell."""


def main() -> None:
    """Runs the notebook on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the outputs")
    given = parser.parse_args()
    notebook = nbformat.read(given.notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HEADSTART_CACHE": f"{folder}/cache"}
        os.environ.pop("HEADSTART_LOGS", None)
        NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": folder}}).execute()
        if given.write:
            clean(notebook, {f"{folder}/cache": "~/.cache/headstart", f"{folder}/": ""})
            nbformat.write(notebook, given.notebook)
    print(f"{given.notebook}: all cells ran")


def clean(notebook: NotebookNode, replaced: dict[str, str]) -> None:
    """Joins the messages of a cell, replaces texts in them, and removes times and colours."""
    for cell in (each for each in notebook.cells if each.cell_type == "code"):
        cell.metadata = {}
        outputs: list[NotebookNode] = []
        for output in cell.outputs:
            if output.output_type == "stream":
                for text, by in replaced.items():
                    output.text = output.text.replace(text, by)
            elif "text/plain" in output.get("data", {}):
                output.data["text/plain"] = re.sub(r"\x1b\[[\d;]*m", "", output.data["text/plain"])
            before = outputs[-1] if outputs else None
            if before and output.output_type == before.output_type == "stream" and output.name == before.name:
                before.text += output.text
            else:
                outputs.append(output)
        cell.outputs = outputs


if __name__ == "__main__":
    main()
