"""Keras 2 (tf-keras) on TensorFlow: .h5 of a model and of weights, .keras, and what TensorFlow itself saves."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from input_makers.case import fresh, says, tuned_array
from input_makers.hdf5_contents import datasets

TOOLS = ("tf-keras", "tensorflow-cpu", "h5py")


def model() -> tf_keras.Model:
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(0)
    given = tf_keras.Input((6,), name="given")
    inner = tf_keras.layers.Dense(8, activation="relu", name="dense")(given)
    inner = tf_keras.layers.BatchNormalization(name="norm")(inner)
    built = tf_keras.Model(given, tf_keras.layers.Dense(3, name="head")(inner), name="small")
    built.compile(optimizer="adam", loss="mse")
    return built


def main() -> None:
    for name, ending in (("keras2-h5", ".h5"), ("keras2-weights", ".weights.h5"), ("keras2", ".keras")):
        folder = fresh(name, *TOOLS)
        told = {}
        for side in ("base", "tuned"):
            found = model()
            if side == "tuned":
                found.set_weights([tuned_array(array, 3) for array in found.get_weights()])
            path = folder / f"{side}{ending}"
            found.save_weights(path) if ending == ".weights.h5" else found.save(path)
            told[side] = datasets(path)
        says(folder, **told)
    folder = fresh("tf-checkpoint", *TOOLS[1:2])
    weights = [tf.Variable(array) for array in model().get_weights()]
    tf.train.Checkpoint(weights=weights).write(folder / "model" / "ckpt")
    saved = fresh("tf-saved-model", *TOOLS[1:2])
    module = tf.Module()
    module.weight = tf.Variable(tf.ones((3, 2)))
    tf.saved_model.save(module, str(saved / "model"))


if __name__ == "__main__":
    main()
