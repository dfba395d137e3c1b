"""Freeze what mergekit and PEFT make of small models: oracles.npz and oracles.json beside this script.

    make oracle

Runs in an environment of its own (benchmarks/requirements-oracle.txt); diffpack is not needed. The base is all zeros,
so that the tools' results are the merged changes themselves, in float32. Random methods draw from the uniform numbers
stored with them: `torch.bernoulli` is replaced by a comparison with these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mergekit.merge_methods  # noqa: F401 - must be first: its modules import one another
import numpy as np
import torch
from mergekit.merge_methods import registry
from mergekit.merge_methods.base import TensorBatch, TensorGroup
from peft.utils import merge_utils

HERE = Path(__file__).parent
SHAPES = {"matrix": (12, 16), "vector": (40,), "conv": (4, 6, 3)}
WEIGHTS = (0.5, 0.3, 0.9)
DENSITY, GAMMA, EPSILON = 0.4, 0.06, 0.2
SPARSE = 0.15  # of the entries change in the sparse models
Arrays = dict[str, np.ndarray]


def models(rng: np.random.Generator, density: float) -> list[Arrays]:
    """Three models: normal changes of a size that varies with the model, at `density` of the entries."""
    found = []
    for at in range(len(WEIGHTS)):
        model = {}
        for name, shape in SHAPES.items():
            values = rng.standard_normal(shape).astype(np.float32) * np.float32(0.05 * (at + 1))
            model[name] = np.where(rng.random(shape) < density, values, np.float32(0))
        found.append(model)
    return found


class Chances:
    """Stands for torch.bernoulli: each call takes the next array of uniform numbers."""

    def __init__(self, uniform: list[np.ndarray]) -> None:
        self._uniform = iter(uniform)

    def __call__(self, chances: torch.Tensor) -> torch.Tensor:
        return (torch.from_numpy(next(self._uniform)).reshape(chances.shape) < chances).to(chances.dtype)


def with_mergekit(name: str, tensors: list[torch.Tensor], **parameters: Any) -> torch.Tensor:
    method = registry.get(name)
    base = torch.zeros_like(tensors[0])
    group = TensorGroup.from_tensors([base, *tensors], base_index=0)
    per_model = {
        key: dict(zip(range(1, 9), value, strict=False))
        for key, value in parameters.items()
        if isinstance(value, tuple)
    }
    shared = {key: value for key, value in parameters.items() if not isinstance(value, tuple)}
    known = {spec.name for spec in method.spec.parameters}
    defaults = {
        spec.name: spec.default
        for spec in method.spec.parameters
        if spec.name in ("int8_mask", "rescale", "lambda", "normalize")
    }
    given = {key: value for key, value in (defaults | per_model | shared).items() if key in known}
    return method.merge_group(group, **given)


Case = tuple[str, str, dict[str, Any], Callable[[list[torch.Tensor]], torch.Tensor]]


def cases() -> Iterator[Case]:
    """Give (tool and method, models, how diffpack is asked for the same, how the tool is)."""
    dense = (DENSITY,) * 3
    gamma, epsilon = (GAMMA,) * 3, (EPSILON,) * 3
    ours: dict[str, Any] = {"weights": WEIGHTS, "density": DENSITY}

    def kit(name: str, **parameters: Any) -> Callable[[list[torch.Tensor]], torch.Tensor]:
        return lambda tensors: with_mergekit(name, tensors, **{"weight": WEIGHTS, **parameters})

    yield "mergekit task_arithmetic", "dense", {"method": "task_arithmetic", "weights": WEIGHTS}, kit("task_arithmetic")
    for normalize in (True, False):
        yes = {"normalize": normalize}
        suffix = "" if normalize else " without normalize"
        yield (
            f"mergekit task_arithmetic{suffix}",
            "sparse",
            {"method": "task_arithmetic", "weights": WEIGHTS} | yes,
            kit("task_arithmetic", **yes),
        )
        for models_of in ("dense", "sparse"):
            yield (
                f"mergekit ties{suffix}",
                models_of,
                ours | {"method": "ties"} | yes,
                kit("ties", density=dense, **yes),
            )
    shrunk = {"lambda": 0.7}
    yield (
        "mergekit ties, lambda 0.7",
        "dense",
        ours | {"method": "ties", "scale": 0.7},
        kit("ties", density=dense, **shrunk),
    )
    yield (
        "mergekit task_arithmetic, lambda 0.7, normalize",
        "dense",
        {"method": "task_arithmetic", "weights": WEIGHTS, "scale": 0.7, "normalize": True},
        kit("task_arithmetic", normalize=True, **shrunk),
    )
    yield (
        "mergekit dare_ties, lambda 0.7, normalize, not rescaled",
        "dense",
        ours | {"method": "dare_ties", "rescale": "none", "scale": 0.7, "normalize": True},
        kit("dare_ties", density=dense, normalize=True, rescale=False, **shrunk),
    )
    each = (0.3, 0.9, 0.6)
    for name in ("ties", "breadcrumbs_ties", "dare_linear", "della"):
        own = {"dare_linear": {"rescale": "norm"}, "della": {"rescale": "norm", "epsilon": [0.05, 0.08, 0.2]}}
        more = {"breadcrumbs_ties": {"gamma": (0.01,) * 3}, "della": {"epsilon": (0.05, 0.08, 0.2)}}
        yield (
            f"mergekit {name}, a density for each",
            "dense",
            {"method": name, "weights": WEIGHTS, "density": list(each)} | own.get(name, {}),
            kit(name, density=each, **more.get(name, {})),
        )
    for name in ("breadcrumbs", "breadcrumbs_ties"):
        asked = ours | {"method": name, "gamma": GAMMA}
        for models_of in ("dense", "sparse"):
            yield f"mergekit {name}", models_of, asked, kit(name, density=dense, gamma=gamma)
    for name in ("dare_linear", "dare_ties"):
        yield f"mergekit {name}", "dense", ours | {"method": name, "rescale": "norm"}, kit(name, density=dense)
    for name in ("della", "della_linear"):
        asked = ours | {"method": name, "rescale": "norm", "epsilon": EPSILON}
        yield f"mergekit {name}", "dense", asked, kit(name, density=dense, epsilon=epsilon)
    for density in (1.0, DENSITY):
        for models_of in ("dense", "sparse"):
            yield (
                f"mergekit sce, {density:g}",
                models_of,
                {"method": "sce", "density": density},
                kit("sce", select_topk=density),
            )

    weights, plain = torch.tensor(WEIGHTS), torch.ones(3)
    yield (
        "peft task_arithmetic",
        "dense",
        {"method": "task_arithmetic", "weights": WEIGHTS},
        lambda t: merge_utils.task_arithmetic(t, weights),
    )
    for models_of in ("dense", "sparse"):
        yield (
            "peft magnitude_prune",
            models_of,
            ours | {"method": "magnitude"},
            lambda t: merge_utils.magnitude_prune(t, weights, DENSITY),
        )
        yield (
            "peft ties",
            models_of,
            {"method": "ties", "density": DENSITY},
            lambda t: merge_utils.ties(t, plain, DENSITY),
        )
    yield (
        "peft dare_linear",
        "dense",
        ours | {"method": "dare_linear"},
        lambda t: merge_utils.dare_linear(t, weights, DENSITY),
    )
    yield (
        "peft dare_ties",
        "dense",
        {"method": "dare_ties", "density": DENSITY, "normalize": True},
        lambda t: merge_utils.dare_ties(t, plain, DENSITY),
    )


def between_models(t: float) -> Callable[[list[torch.Tensor]], torch.Tensor]:
    """Give mergekit's `slerp` of the first two whole models; its base is the first, not what both were tuned from."""

    def run(tensors: list[torch.Tensor]) -> torch.Tensor:
        batch = TensorBatch(tuple(tensor[None] for tensor in tensors[:2]), base_index=0)
        merged: torch.Tensor = registry.get("slerp").merge_batch(batch, t=torch.tensor([t]))
        return merged[0]

    return run


def small_sce(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Give mergekit's `sce` of changes whose mean squares are below its bound."""
    return with_mergekit("sce", tensors, select_topk=DENSITY)


def linear_of_models(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Give mergekit's `linear` of whole models."""
    batch = TensorBatch(tuple(tensor[None] for tensor in tensors))
    merged: torch.Tensor = registry.get("linear").merge_batch(batch, weight=torch.tensor([WEIGHTS]), normalize=True)
    return merged[0]


def main() -> None:
    rng = np.random.default_rng(2026)
    inputs = {"dense": models(rng, 1.0), "sparse": models(rng, SPARSE)}
    uniform = [{name: rng.random(shape).astype(np.float32) for name, shape in SHAPES.items()} for _ in WEIGHTS]
    arrays = {
        f"input.{kind}.{at}.{name}": array
        for kind, found in inputs.items()
        for at, model in enumerate(found)
        for name, array in model.items()
    }
    arrays |= {f"uniform.{at}.{name}": array for at, model in enumerate(uniform) for name, array in model.items()}
    base = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    inputs["tuned"] = [
        {name: (base[name] + strength * change).astype(np.float32) for name, change in model.items()}
        for strength, model in zip((0.1, 9.0, 0.1), inputs["dense"], strict=True)
    ]
    arrays |= {f"base.{name}": array for name, array in base.items()}
    arrays |= {f"input.tuned.{at}.{name}": a for at, model in enumerate(inputs["tuned"]) for name, a in model.items()}
    inputs["small"] = [
        {name: (change * np.float32(1e-3)).astype(np.float32) for name, change in model.items()}
        for model in inputs["dense"]
    ]
    arrays |= {f"input.small.{at}.{name}": a for at, model in enumerate(inputs["small"]) for name, a in model.items()}
    rows = []
    average = {"weights": WEIGHTS}
    listed = [
        *cases(),
        *(("mergekit linear", "dense", average | {"method": name}, linear_of_models) for name in ("average", "linear")),
        ("mergekit linear, of tuned models", "tuned", average | {"method": "linear"}, linear_of_models),
        ("mergekit sce, of small changes", "small", {"method": "sce", "density": DENSITY, "epsilon": 1e-6}, small_sce),
        *(
            (f"mergekit slerp, t {t:g}", kind, {"method": "slerp", "t": t}, between_models(t))
            for kind in ("dense", "tuned")
            for t in (0.3, 0.75)
        ),
    ]
    for at, (what, kind, ours, run) in enumerate(listed):
        for name in SHAPES:
            torch.bernoulli = Chances([model[name] for model in uniform])
            tensors = [torch.from_numpy(model[name].copy()) for model in inputs[kind]]
            arrays[f"output.{at}.{name}"] = run(tensors).numpy()
        rows.append({"what": what, "models": kind, "ours": ours})
    tools = {tool: version(tool) for tool in ("mergekit", "peft", "torch", "numpy")}
    np.savez_compressed(HERE / "oracles.npz", **arrays)
    text = json.dumps({"made by": "tests/oracles/make_oracles.py", "tools": tools, "cases": rows}, indent=1)
    (HERE / "oracles.json").write_text(text + "\n")
    print(f"{len(rows)} cases, {tools}")


if __name__ == "__main__":
    main()
