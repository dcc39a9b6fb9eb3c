"""Draws the picture of the README from a table of docs/accuracy.md: accuracy over the number of pictures per class.

python scripts/draw_landing_picture.py
"""

import re
from pathlib import Path

import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
SHOWN = {  # row of the table -> label and colour
    "`experiment=auto`": ("Headstart", "#1f6feb"),
    "Lightning's `BackboneFinetuning`": ("Lightning, BackboneFinetuning", "#6e7781"),
    "fastai's `fine_tune`": ("fastai, fine_tune", "#8250df"),
    "the PyTorch tutorial, only the head": ("PyTorch tutorial, frozen", "#bf8700"),
    "the PyTorch tutorial, all layers": ("PyTorch tutorial, all layers", "#cf222e"),
}
WITH_NUMBERS = ("Headstart", "Lightning, BackboneFinetuning")
TITLES = {"CIFAR-10, 64 px": "CIFAR-10 (10 classes)", "Cats and dogs, 128 px": "Cats and dogs"}


def rows(text: str, heading: str) -> tuple[list[int], dict[str, list[tuple[float, float, float]]]]:
    """Pictures per class, and for each row of the table behind `heading`: mean, lowest and highest of each cell."""
    table = text[text.index(heading) :].split("\n\n")[1].splitlines()
    counts = [int(number) for number in re.findall(r"(\d+) per class", table[0])]
    found = {}
    for line in table[2:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found[name] = [tuple(map(float, re.findall(r"\d\.\d+", cell))) for cell in cells[: len(counts)]]
    return counts, found


def main() -> None:
    """Writes docs/landing.png."""
    text = (ROOT / "docs/accuracy.md").read_text(encoding="utf-8")
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 3.9), dpi=150)
    for panel, (heading, title) in zip(panels, TITLES.items(), strict=True):
        counts, found = rows(text, f"{heading}, ")
        for row, (label, colour) in SHOWN.items():
            means, lows, highs = zip(*found[row], strict=True)
            width = 2.8 if label == "Headstart" else 1.6
            panel.plot(counts, means, color=colour, linewidth=width, marker="o", markersize=5, label=label)
            panel.fill_between(counts, lows, highs, color=colour, alpha=0.12, linewidth=0)
            if label in WITH_NUMBERS:
                last = counts[-1], means[-1]
                panel.annotate(f"{means[-1]:.2f}", last, (7, -3), textcoords="offset points", color=colour, fontsize=9)
        panel.set_title(title, fontsize=11)
        panel.set_xticks(counts)
        panel.set_xlabel("labelled pictures per class")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.1)
    panels[0].set_ylabel("test accuracy")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(ROOT / "docs/landing.png")


if __name__ == "__main__":
    main()
