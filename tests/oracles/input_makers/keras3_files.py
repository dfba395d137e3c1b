"""Keras 3: .keras, .weights.h5 and the older .h5, on jax."""

from __future__ import annotations

import keras
import numpy as np

from input_makers.case import fresh, says, tuned_array
from input_makers.hdf5_contents import datasets


def model() -> keras.Model:
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    given = keras.Input((6,), name="given")
    inner = keras.layers.Dense(8, activation="relu", name="dense")(given)
    inner = keras.layers.BatchNormalization(name="norm")(inner)
    return keras.Model(given, keras.layers.Dense(3, name="head")(inner), name="small")


def main() -> None:
    for name, ending in (("keras3", ".keras"), ("keras3-weights", ".weights.h5"), ("keras3-h5", ".h5")):
        folder = fresh(name, "keras", "jax", "h5py")
        told = {}
        for side in ("base", "tuned"):
            found = model()
            if side == "tuned":
                found.set_weights([tuned_array(array, 3) for array in found.get_weights()])
            path = folder / f"{side}{ending}"
            found.save_weights(path) if ending == ".weights.h5" else found.save(path)
            told[side] = datasets(path)
            weights = sorted(np.asarray(array).tobytes() for array in found.get_weights())
            assert weights == sorted(array.tobytes() for array in told[side].values())
        says(folder, **told)


if __name__ == "__main__":
    main()
