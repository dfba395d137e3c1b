"""Arrays by name: numpy's .npz, and MLX's safetensors and .npz."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn
import mlx.utils
import numpy as np

from input_makers.case import fresh, says, tuned_array


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        "dense/kernel": rng.standard_normal((8, 6)).astype(np.float32),
        "dense/bias": rng.standard_normal(6).astype(np.float32),
        "embed": rng.standard_normal((10, 4)).astype(np.float16),
        "turned": np.asfortranarray(rng.standard_normal((5, 3))),
        "steps": np.arange(7),
        "scale": np.float32(0.5),
    }


def numpy_files() -> None:
    for name, save in (("npz", np.savez), ("npz-compressed", np.savez_compressed)):
        folder = fresh(name, "numpy")
        told = {"base": arrays(), "tuned": {key: tuned_array(value, 3) for key, value in arrays().items()}}
        for side, found in told.items():
            save(folder / f"{side}.npz", **found)
        says(folder, **told)


def mlx_files() -> None:
    """What `mlx.nn.Module.save_weights` writes, in half precision as mlx-lm keeps it."""
    safetensors, npz = fresh("mlx", "mlx"), fresh("mlx-npz", "mlx")
    told: dict[str, dict[str, np.ndarray]] = {}
    plain: dict[str, dict[str, np.ndarray]] = {}
    for side in ("base", "tuned"):
        mx.random.seed(0)
        module = mlx.nn.Sequential(mlx.nn.Embedding(10, 8), mlx.nn.Linear(8, 6), mlx.nn.RMSNorm(6))
        found = {key: np.array(value) for key, value in mlx.utils.tree_flatten(module.parameters())}
        if side == "tuned":
            found = {key: tuned_array(value, 3) for key, value in found.items()}
        module.load_weights([(key, mx.array(value)) for key, value in found.items()])
        module.save_weights(str(npz / f"{side}.npz"))
        plain[side] = found
        module.set_dtype(mx.bfloat16)
        weights = dict(mlx.utils.tree_flatten(module.parameters()))
        mx.save_safetensors(str(safetensors / f"{side}.safetensors"), weights, metadata={"format": "mlx"})
        told[side] = {key: as_numpy(value) for key, value in weights.items()}
    says(safetensors, **told)
    says(npz, **plain)


def as_numpy(value: mx.array) -> np.ndarray:
    import ml_dtypes

    return np.array(value.view(mx.uint16)).view(ml_dtypes.bfloat16)


def main() -> None:
    numpy_files()
    mlx_files()


if __name__ == "__main__":
    main()
