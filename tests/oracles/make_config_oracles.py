"""Freeze what mergekit makes of its own configuration files: configs.npz and configs.json beside this script.

    make oracle

Runs in the environment of `make_oracles.py`. The models are llamas of some hundred parameters, written as folders that
mergekit reads; `CONFIGS` are files as its users write them. Methods that draw random numbers keep everything here
(density 1), so that nothing is drawn.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import mergekit.merge_methods  # noqa: F401 - must be first: its modules import one another
import numpy as np
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent
LAYERS, WIDTH, INNER, VOCABULARY = 3, 8, 12, 10
MODELS = ("base", "one", "two")
CONFIGS = {
    "ties, weights along the layers, density by filter": """
        merge_method: ties
        base_model: base
        models:
          - model: one
            parameters:
              weight: [0.2, 0.9]
              density:
                - filter: mlp
                  value: 0.3
                - filter: self_attn
                  value: [0.9, 0.2, 0.6]
                - value: 0.7
          - model: two
            parameters: {weight: 0.4}
        parameters: {density: 0.5, int8_mask: true}
        dtype: float32
    """,
    "linear": """
        merge_method: linear
        models:
          - model: one
            parameters: {weight: 1.0}
          - model: two
            parameters: {weight: 0.3}
    """,
    "linear, of the base too": """
        merge_method: linear
        base_model: base
        models:
          - model: one
            parameters: {weight: 2}
          - model: two
        parameters: {weight: [0.1, 0.9]}
    """,
    "linear, not normalised": """
        merge_method: linear
        models:
          - model: one
            parameters: {weight: 0.7}
          - model: two
            parameters: {weight: 0.3}
        parameters: {normalize: false}
    """,
    "task arithmetic, lambda, the base among the models": """
        merge_method: task_arithmetic
        base_model: base
        models:
          - model: base
          - model: one
            parameters:
              weight:
                - {filter: embed, value: 0}
                - {filter: lm_head, value: 1e-1}
                - {value: 0.8}
          - model: two
            parameters: {weight: 0.5}
        parameters: {lambda: 0.6, normalize: true, density: 0.2}
    """,
    "slerp, slices and filters": """
        slices:
          - sources:
              - {model: two, layer_range: [0, 3]}
              - {model: one, layer_range: [0, 3]}
        merge_method: slerp
        base_model: one
        parameters:
          t:
            - filter: self_attn
              value: [0, 0.5, 0.3, 0.7, 1]
            - filter: mlp
              value: [1, 0.5, 0.7, 0.3, 0]
            - value: 0.5
        dtype: float32
    """,
    "slerp from the base": """
        merge_method: slerp
        base_model: base
        models:
          - model: two
        parameters: {t: 0.4}
    """,
    "breadcrumbs_ties": """
        merge_method: breadcrumbs_ties
        base_model: base
        models:
          - model: one
            parameters: {weight: 0.5, gamma: 0.1}
          - model: two
            parameters: {weight: 0.7, density: 0.6}
        parameters: {density: 0.4, gamma: 0.02}
    """,
    "dare_ties, everything kept": """
        merge_method: dare_ties
        base_model: base
        models:
          - model: one
            parameters: {weight: 0.5, density: 1}
          - model: two
            parameters: {weight: 0.9}
        parameters: {normalize: true}
    """,
    "della_linear, a model left out of some layers": """
        merge_method: della_linear
        base_model: base
        models:
          - model: one
            parameters:
              weight: 0.5
              density:
                - {filter: layers.1., value: 0}
                - {value: 1}
          - model: two
            parameters: {weight: 0.9}
    """,
    "sce": """
        merge_method: sce
        base_model: base
        models: [{model: one}, {model: two}]
        parameters: {select_topk: 0.5}
    """,
}


def architecture() -> dict[str, Any]:
    """Give the configuration of a llama without anything tied."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
    }


def tensors(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Give random weights, float32, large enough that mean squares are above mergekit's bounds."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, WIDTH),
        "lm_head.weight": (VOCABULARY, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.{norm}.weight": (WIDTH,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{at}.self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
        shapes |= {f"{at}.mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (WIDTH, INNER)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in sorted(shapes.items())}


def main() -> None:
    """Write the models, let mergekit merge them, keep what it makes."""
    logging.disable(logging.WARNING)
    rng = np.random.default_rng(15)
    base, one, two = (tensors(rng) for _ in MODELS)
    models = {
        "base": base,
        "one": {name: (base[name] + np.float32(0.1) * change).astype(np.float32) for name, change in one.items()},
        "two": {name: (base[name] + np.float32(0.6) * change).astype(np.float32) for name, change in two.items()},
    }
    arrays = {f"{model}.{name}": array for model, found in models.items() for name, array in found.items()}
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        for model, found in models.items():
            Path(model).mkdir()
            save_file(found, f"{model}/model.safetensors")
            Path(model, "config.json").write_text(json.dumps(architecture()))
        for at, (what, text) in enumerate(CONFIGS.items()):
            asked = MergeConfiguration.model_validate(yaml.safe_load(text))
            options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
            run_merge(asked, f"out{at}", options)
            merged = load_file(f"out{at}/model.safetensors")
            assert set(merged) == set(base), what
            arrays |= {f"output.{at}.{name}": array for name, array in merged.items()}
    np.savez_compressed(HERE / "configs.npz", **arrays)
    rows = [{"what": what, "config": yaml.safe_dump(yaml.safe_load(text))} for what, text in CONFIGS.items()]
    tools = {tool: version(tool) for tool in ("mergekit", "torch", "numpy")}
    text = json.dumps({"made by": "tests/oracles/make_config_oracles.py", "tools": tools, "cases": rows}, indent=1)
    (HERE / "configs.json").write_text(text + "\n")
    print(f"{len(rows)} configuration files, {tools}")


if __name__ == "__main__":
    main()
