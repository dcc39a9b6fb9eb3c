"""Compares strategies of this project with other methods on the same few labelled texts.

    python scripts/compare_texts.py --train train.tsv --test dev.tsv --model <MiniLM> --labels 100 --out results
    python scripts/compare_texts.py --out results               only the table of existing results

A draw takes at most `--labels` texts from `--train`, the same number of each class (0: all texts). All methods get the
same texts and are judged once on all of `--test`; none of them sees `--test` before. Methods:

    auto, probe, lp_ft, full, ulmfit   this project, with `data.val_fraction=0.15` where it needs validation
    tfidf         logistic regression on TF-IDF of words and pairs of words, penalty by cross-validation
    embeddings    logistic regression on the frozen, mean-pooled features of the encoder, penalty by cross-validation
    trainer       `transformers.Trainer` with its defaults: 3 epochs, batches of 8, learning rate 5e-5, falling linearly
    setfit        SetFit with its defaults: an epoch over pairs of texts, then logistic regression; only if it is named,
                  because the number of pairs grows with the square of the number of texts

Each result is a line of `<out>/results.jsonl` with the accuracy, the seconds of the whole process, and its peak memory;
existing results are not run again, so give each `--train` its own `--out`. The table has mean (lowest to highest) over
the draws.
"""

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = {
    "auto": ["experiment=auto"],
    "probe": ["finetuning=probe", "data.val_fraction=0"],
    "lp_ft": ["finetuning=lp_ft", "trainer.max_epochs=21"],
    "full": ["finetuning=full", "trainer.max_epochs=21"],
    "ulmfit": ["experiment=ulmfit"],
}
OTHERS = ("tfidf", "embeddings", "trainer", "setfit")
Rows = list[tuple[str, str]]


def read(file: Path) -> Rows:
    """Text and label of each row: a TSV without header, or a CSV with the columns text and label."""
    with file.open(encoding="utf-8", newline="") as stream:
        if file.suffix == ".tsv":
            return [tuple(line.rstrip("\r\n").rsplit("\t", 1)) for line in stream if line.strip()]
        return [(row["text"], row["label"]) for row in csv.DictReader(stream)]


def draw(rows: Rows, labels: int, seed: int) -> Rows:
    """`labels` rows, the same number of each class."""
    if not labels:
        return rows
    chosen = random.Random(seed).sample(rows, len(rows))
    names = sorted({label for _, label in rows})
    return [row for name in names for row in [r for r in chosen if r[1] == name][: labels // len(names)]]


def write(rows: Rows, file: Path) -> None:
    """A CSV file that all methods read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])


def run(method: str, folder: Path, options: argparse.Namespace, seed: int) -> dict:
    """One method in its own process: accuracy, seconds and peak memory in MB."""
    if method in OURS:
        command = [
            "src/train.py", f"model.name={options.model}", *OURS[method], "data=text_table", f"data.root={folder}",
            f"seed={seed}", f"hydra.run.dir={folder / method}", "trainer=cpu", "trainer.enable_progress_bar=false",
        ]  # fmt: skip
        command += [] if method == "ulmfit" else ["model=minilm"]
    else:
        command = [__file__, "--other", method, "--folder", str(folder), "--model", options.model, "--seed", str(seed)]
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{method} failed")
    if method in OURS:
        accuracy = json.loads((folder / method / "metrics.json").read_text())["test/acc"]
    else:
        accuracy = float(output.split()[-1])
    return {"accuracy": accuracy, "seconds": time.perf_counter() - started, "memory": usage.ru_maxrss / 1000}


def other(method: str, folder: Path, model: str, seed: int) -> float:
    """The accuracy of a method that imports nothing from this project."""
    train, test = read(folder / "train.csv"), read(folder / "test.csv")
    (texts, labels), (tested, expected) = zip(*train, strict=True), zip(*test, strict=True)
    if method == "trainer":
        return with_trainer(texts, labels, tested, expected, folder, model, seed)
    if method == "setfit":
        return with_setfit(texts, labels, tested, expected, folder, model, seed)
    from sklearn.linear_model import LogisticRegressionCV

    if method == "tfidf":
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        inputs, tests = vectorizer.fit_transform(texts), vectorizer.transform(tested)
    else:
        inputs, tests = embedded(texts, model), embedded(tested, model)
    folds = min(5, min(labels.count(label) for label in set(labels)))
    found = LogisticRegressionCV(Cs=10, cv=folds, max_iter=1000, random_state=seed).fit(inputs, labels)
    return found.score(tests, expected)


def embedded(texts: tuple[str, ...], model: str) -> list:
    """Mean of the token vectors of each text, from `transformers`."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, net = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    rows = []
    with torch.no_grad():
        for start in range(0, len(texts), 32):
            batch = tokenizer(list(texts[start : start + 32]), padding=True, truncation=True, max_length=256,
                              return_tensors="pt")  # fmt: skip
            mask = batch["attention_mask"][..., None]
            hidden = net(**batch).last_hidden_state
            rows += ((hidden * mask).sum(1) / mask.sum(1)).tolist()
    return rows


def with_trainer(texts, labels, tested, expected, folder: Path, model: str, seed: int) -> float:
    """`transformers.Trainer` with the defaults of `TrainingArguments`."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(seed)
    names = sorted(set(labels))
    tokenizer = AutoTokenizer.from_pretrained(model)
    net = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(names))

    def rows(texts, labels):
        return [
            tokenizer(text, truncation=True, max_length=256) | {"labels": names.index(label)}
            for text, label in zip(texts, labels, strict=True)
        ]

    arguments = TrainingArguments(str(folder / "trainer"), report_to=[], save_strategy="no", seed=seed, use_cpu=True)
    trainer = Trainer(net, arguments, DataCollatorWithPadding(tokenizer), rows(texts, labels))
    trainer.train()
    logits = trainer.predict(rows(tested, expected)).predictions
    right = torch.tensor(logits).argmax(1) == torch.tensor([names.index(label) for label in expected])
    return right.float().mean().item()


def with_setfit(texts, labels, tested, expected, folder: Path, model: str, seed: int) -> float:
    """SetFit (Tunstall and others, 2022, arXiv 2209.11055) with the defaults of its library."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    net = SetFitModel.from_pretrained(model, labels=sorted(set(labels)))
    arguments = TrainingArguments(str(folder / "setfit"), seed=seed, report_to="none", save_strategy="no")
    rows = Dataset.from_dict({"text": list(texts), "label": list(labels)})
    Trainer(net, arguments, train_dataset=rows).train()
    return sum(map(str.__eq__, net.predict(list(tested)), expected)) / len(expected)


def table(results: list[dict]) -> str:
    """Markdown: a row per method, a column per number of labels."""
    cells: dict = defaultdict(list)
    for result in results:
        cells[result["method"], result["labels"]].append(result)
    numbers = sorted({labels for _, labels in cells}, key=lambda labels: labels or 10**9)
    lines = ["| | " + " | ".join(f"{n or 'all'} labels | s | MB" for n in numbers) + " |"]
    lines.append("|---" * (1 + 3 * len(numbers)) + "|")
    for method in (*OURS, *OTHERS):
        row = [f"`{method}`"]
        for number in numbers:
            found = cells.get((method, number), [])
            scores = [one["accuracy"] for one in found]
            row += [
                f"{statistics.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})" if found else "",
                f"{statistics.median(one['seconds'] for one in found):.0f}" if found else "",
                f"{max(one['memory'] for one in found):.0f}" if found else "",
            ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--model", type=Path, help="folder of the encoder, as the Hugging Face hub has it")
    parser.add_argument("--labels", type=int, nargs="+", default=[100], help="0: all")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=[*OURS, *OTHERS[:-1]], choices=[*OURS, *OTHERS])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--other", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.other:
        print(other(options.other, options.folder, str(options.model), options.seed))
        return
    if options.out is None or (options.train and not (options.test and options.model)):
        parser.error("give --out, and to run something also --train, --test and --model")
    options.model = options.model and options.model.resolve()  # the methods run in another folder
    file = options.out.resolve() / "results.jsonl"
    results = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(one["method"], one["labels"], one["draw"]) for one in results}
    for labels, seed in ((n, d) for n in options.labels for d in range(options.draws) if options.train):
        folder = file.parent / f"{labels}_{seed}"
        if not folder.exists():
            write(draw(read(options.train), labels, seed), folder / "train.csv")
            write(read(options.test), folder / "test.csv")
        for method in options.methods:
            if (method, labels, seed) not in done:
                results.append({"method": method, "labels": labels, "draw": seed, **run(method, folder, options, seed)})
                print(json.dumps(results[-1]), flush=True)
                with file.open("a") as stream:
                    stream.write(json.dumps(results[-1]) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
