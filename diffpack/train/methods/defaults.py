"""Learning rates and epochs where the user says nothing, each with its source."""

from __future__ import annotations

from diffpack.train.options import TrainOptions

EPOCHS = 3
"""BERT's and diff pruning's number for GLUE."""
FULL_LR = 1e-4
"""Full fine-tuning of a six-layer MiniLM, batch 32; large models want 2e-5 to 5e-5 (BERT, appendix A.3)."""
SPARSE_LR = 3e-3
"""Few entries must move further than many. Of 1e-3, 3e-3, 1e-2 the best for MiniLM; larger models want less."""
SPARSE_WARMUP = 0.1
"""Part of the steps in which the learning rate rises: at once, so high a rate can throw a model off for good (RTE)."""
BIAS_LR = 1e-2
"""BitFit searches 1e-4 to 1e-2."""
HEAD_LR = 1e-2
"""A linear layer on frozen features."""
ADAPTER_LR = 1e-3
"""Houlsby et al. search 3e-5, 3e-4, 3e-3."""
ADAPTER_WARMUP = 0.1
"""Houlsby et al. 2019: linear warm-up over a tenth of the steps."""
LORA_LR = 1e-3
"""Hu et al. 2022 use 4e-4 to 5e-4 for RoBERTa-base; smaller models want more."""


def epochs_of(options: TrainOptions, default: int = EPOCHS) -> int:
    """The epochs of a stage."""
    return default if options.epochs is None else options.epochs


def lr_of(options: TrainOptions, default: float) -> float:
    """The learning rate of a stage."""
    return default if options.lr is None else options.lr


def find_lr_of(options: TrainOptions) -> float:
    """The learning rate of the full fine-tuning that only finds the entries to train."""
    return FULL_LR if options.find_lr is None else options.find_lr
