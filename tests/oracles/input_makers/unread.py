"""Formats that are not read: GGUF, ONNX, flax's msgpack, pickles, and pointers that Git LFS leaves."""

from __future__ import annotations

import gguf
import joblib
import numpy as np
import onnx
import orbax.checkpoint as orbax
from flax import serialization
from sklearn.linear_model import LogisticRegression

from input_makers.case import fresh


def main() -> None:
    weights = {"w": np.ones((4, 3), np.float32), "b": np.zeros(3, np.float32)}
    writer = gguf.GGUFWriter(fresh("gguf", "gguf") / "model.gguf", "llama")
    for name, array in weights.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])
    after = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])
    step = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([step], "g", [value], [after], [onnx.numpy_helper.from_array(weights["w"], "w")])
    onnx.save(onnx.helper.make_model(graph), fresh("onnx", "onnx") / "model.onnx")
    (fresh("flax-msgpack", "flax") / "model.msgpack").write_bytes(serialization.to_bytes(weights))
    folder = fresh("orbax", "orbax-checkpoint") / "model"
    orbax.PyTreeCheckpointer().save(folder, weights)
    (folder / "commit_success.txt").unlink(missing_ok=True)  # says where this machine saved it
    learnt = LogisticRegression().fit(np.eye(4), [0, 1, 0, 1])
    joblib.dump(learnt, fresh("joblib", "joblib", "scikit-learn") / "model.joblib")


if __name__ == "__main__":
    main()
