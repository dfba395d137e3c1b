"""What the user of the trainer may choose, checked."""

from __future__ import annotations

from dataclasses import dataclass

from diffpack.errors import UsageError

METHODS = (
    "sparse", "lt-sft", "spiel", "bitfit", "top-layers", "diff-pruning", "diff-pruning-structured", "non-adaptive",
    "full", "last-layer", "head-only", "adapters", "lora", "magnitude-pruning", "movement-pruning",
)  # fmt: skip
"""Every method by its name; `diffpack.train.methods` says what each does."""
SELECTIONS = ("fisher", "gradient", "random", "smallest", "largest")
"""How the method `sparse` picks its positions."""
VALUES = ("f16", "exact", "int8")
SPARSE_MODELS = ("magnitude-pruning", "movement-pruning")
"""Methods whose model is sparse: a zero is a zero again only if its difference from the base is stored exactly."""
_GATED = ("diff-pruning", "diff-pruning-structured")
_FINDING = ("lt-sft", "non-adaptive")
TAKEN_BY: dict[str, tuple[str, ...]] = {
    "density": ("sparse", "spiel", *_FINDING, *_GATED, *SPARSE_MODELS), "floor": ("sparse", *_FINDING, *_GATED),
    "selection": ("sparse",), "layers": ("top-layers",), "size": ("adapters", "lora"), "find_lr": _FINDING,
    "penalty": _GATED, "fixed_lr": _GATED,
}  # fmt: skip
"""The options that are some methods' only; with another one they are refused."""
PRECISIONS = ("fp32", "bf16")
"""What training computes in; weights and optimisers keep the model's own dtype."""
MOST_TOKENS = 1 << 20
"""Beyond any model's window; a larger --max-length is a slip."""


@dataclass(frozen=True)
class TrainOptions:
    """How a task is trained. None stands for the method's own default.

    `density` is the fraction of the body's entries that may change (for pruning: that stay). `floor` is the part of
    it that every tensor is sure of. `layers` is for top-layers, `size` the adapters' bottleneck or LoRA's rank.
    `head_epochs` trains the head alone first. `precision` is what training computes in, `diffpack.train.precision`.
    `dropout` is the probability all of the model's dropout modules get; None leaves them as configured.
    `lr` is the learning rate of the stage that trains what is stored; of diff pruning's first one, with the gates.
    `find_lr` is that of the full fine-tuning in which lt-sft and non-adaptive find their entries.
    `penalty` is diff pruning's lambda, what an open gate costs; None: `PruningSettings.penalty`.
    `fixed_lr` is the learning rate of its last stage, with the mask fixed; None: five times the first's, as published.
    `values` is how changes are stored; None: "f16", or "exact" for `SPARSE_MODELS`.

    Raises `UsageError` for a value out of range, and for an option that the method does not take (`TAKEN_BY`).
    """

    method: str = "sparse"
    density: float = 0.005
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    max_length: int = 128
    seed: int = 0
    values: str | None = None
    selection: str = "fisher"
    floor: float = 0.0
    layers: int = 2
    size: int | None = None
    head_epochs: int | None = None
    precision: str = "fp32"
    dropout: float | None = None
    penalty: float | None = None
    fixed_lr: float | None = None
    find_lr: float | None = None

    @property
    def coding(self) -> str:
        """How changes are stored."""
        return self.values or ("exact" if self.method in SPARSE_MODELS else "f16")

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.method, METHODS, "method"),
            (self.coding, VALUES, "value coding"),
            (self.selection, SELECTIONS, "selection"),
            (self.precision, PRECISIONS, "precision"),
        ):
            if value not in known:
                raise UsageError(f"the {what} is one of {', '.join(known)}, not {value!r}")
        for name, methods in TAKEN_BY.items():
            if self.method not in methods and getattr(self, name) != getattr(type(self), name):
                option = name.replace("_", "-")
                raise UsageError(f"the method {self.method} takes no {option}; it is for {', '.join(methods)}")
        if self.floor and self.method == "sparse" and self.selection in ("random", "smallest", "largest"):
            raise UsageError(f"the selection {self.selection} takes no floor; it is for fisher and gradient")
        if not 0 < self.density <= 1:
            raise UsageError(f"a density is above 0 and at most 1, not {self.density}")
        if not 0 <= self.floor <= 1:
            raise UsageError(f"the floor is a part of the density, between 0 and 1, not {self.floor}")
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"at least one epoch is trained, not {self.epochs}")
        if self.head_epochs is not None and self.head_epochs < 0:
            raise UsageError(f"the head is trained alone for 0 epochs or more, not {self.head_epochs}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"a batch holds at least one text, not {self.batch_size}")
        for lr in (self.lr, self.fixed_lr, self.find_lr):
            if lr is not None and not 0 < lr < float("inf"):
                raise UsageError(f"a learning rate is above 0, not {lr}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UsageError(f"a dropout is at least 0 and below 1, not {self.dropout}")
        if self.penalty is not None and not 0 <= self.penalty < float("inf"):
            raise UsageError(f"a penalty is 0 or more, not {self.penalty}")
        if not 2 < self.max_length <= MOST_TOKENS:
            raise UsageError(f"a text is cut to between 3 and {MOST_TOKENS} tokens, not {self.max_length}")
        if not 0 <= self.seed < 1 << 31:
            raise UsageError(f"a seed is between 0 and 2^31 - 1, not {self.seed}")
