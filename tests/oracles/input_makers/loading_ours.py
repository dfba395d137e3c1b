"""Keras itself loads what diffpack writes: the tuned models of the frozen pairs, as files of ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tf_keras

import diffpack
from input_makers import keras2_files, keras3_files
from input_makers.case import INPUTS

Load = Callable[[Path], list[Any]]


def weights_of(model: Callable[[], Any]) -> Load:
    def load(path: Path) -> list[Any]:
        built = model()
        built.load_weights(path)
        return built.get_weights()

    return load


CASES: dict[str, tuple[str, Load]] = {
    "keras3-weights": (".weights.h5", weights_of(keras3_files.model)),
    "keras3-h5": (".h5", lambda path: keras.models.load_model(path).get_weights()),
    "keras2-weights": (".weights.h5", weights_of(keras2_files.model)),
    "keras2-h5": (".h5", lambda path: tf_keras.models.load_model(path).get_weights()),
}


def main() -> None:
    for case, (ending, load) in CASES.items():
        base, tuned = (INPUTS / case / f"{side}{ending}" for side in ("base", "tuned"))
        with tempfile.TemporaryDirectory() as work:
            ours = Path(work) / f"ours{ending}"
            diffpack.apply(base, diffpack.extract(base, tuned), ours)
            loaded, expected, before = load(ours), load(tuned), load(base)
        same = [array.tobytes() for array in loaded] == [array.tobytes() for array in expected]
        assert same, f"{case}: loaded from our file, the model is another"
        assert any(array.tobytes() != other.tobytes() for array, other in zip(loaded, before, strict=True))
        print(f"{case}: loaded")


if __name__ == "__main__":
    main()
