"""Freeze model files as the tools themselves write them: the folder `inputs` beside this script.

    make oracle-inputs

Runs in an environment of its own (benchmarks/requirements-oracle-inputs.txt). Each file of `input_makers` is a process
of its own, since tools do not all bear one another; the last one lets Keras load what diffpack writes. A case is a
folder with `base*` and `tuned*`, one model and the same with few entries changed, `tensors.json`, what the tool says
both hold, and `versions.json`, who wrote it. A case that is not to be read has `model*` instead of a pair. Arguments
name the makers to run; none runs all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from input_makers.case import INPUTS, VERSIONS

MAKERS = (
    "torch_files", "torch_unread", "training_folders", "deepspeed_folders", "transformers_models", "vision",
    "huggingface_folders", "adapters", "quantised", "gptq_files", "array_files", "keras3_files", "keras2_files",
    "unread", "loading_ours",
)  # fmt: skip
SETTINGS = {
    "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "DS_ACCELERATOR": "cpu", "GPTQMODEL_CPU_WORKERS": "2",
    "PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3", "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": str(Path(__file__).parent),
}  # fmt: skip
"""Offline, on the processor, the same draws in every run. GPTQModel starts two threads to load, on any machine."""


def main() -> None:
    failed = []
    for maker in sys.argv[1:] or MAKERS:
        print(f"== {maker}", flush=True)
        with tempfile.TemporaryDirectory() as work:  # some leave logs where they are started
            done = subprocess.run([sys.executable, "-m", f"input_makers.{maker}"], cwd=work,
                                  env=os.environ | SETTINGS, check=False)  # fmt: skip
        failed += [maker] if done.returncode else []
    made = list(INPUTS.glob(f"*/{VERSIONS}"))
    size = sum(path.stat().st_size for path in INPUTS.rglob("*") if path.is_file())
    print(f"{len(made)} cases, {size:,} bytes; failed: {failed or 'none'}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
