"""diffpack: store a fine-tuned model as its difference from the base.

::

    diffpack.extract("base.safetensors", "tuned.safetensors", "task.dpk")
    diffpack.apply("base.safetensors", "task.dpk", "restored.safetensors")
    weights = diffpack.load("base.safetensors", "task.dpk", framework="torch")

Everything that is raised on purpose derives from `diffpack.errors.DiffpackError`.
"""

from typing import TYPE_CHECKING

from diffpack.errors import DiffpackError
from diffpack.support.lazily import lazy_members

if TYPE_CHECKING:
    from diffpack.algebra.compare import Comparison, compare
    from diffpack.algebra.compose import compose
    from diffpack.algebra.invert import invert
    from diffpack.algebra.merge.merge import merge
    from diffpack.algebra.rebase import Rebased, rebase
    from diffpack.algebra.rename import Renamed, rename
    from diffpack.bridges import Converted, convert
    from diffpack.checkpoints import Checkpoint, open_checkpoint
    from diffpack.checkpoints.fingerprint import fingerprint
    from diffpack.diff.diff import Diff
    from diffpack.diff.diff import open_diff as open  # noqa: A004 - diffpack.open(path) is the API, as in gzip or wave
    from diffpack.diff.record import TensorDiff
    from diffpack.extraction.extract import extract
    from diffpack.extraction.many import extract_many
    from diffpack.report.stats import Stats, stats
    from diffpack.result.apply import Applied, apply, load
    from diffpack.result.verify import Verified, verify
    from diffpack.signing.checking import check_signature
    from diffpack.signing.making import sign
else:  # loaded when asked for: a mistake on the command line is told before anything else is
    __getattr__ = lazy_members(
        __name__,
        {
            "Applied": "result.apply",
            "Checkpoint": "checkpoints",
            "Comparison": "algebra.compare",
            "Converted": "bridges",
            "Diff": "diff.diff",
            "Rebased": "algebra.rebase",
            "Renamed": "algebra.rename",
            "Stats": "report.stats",
            "TensorDiff": "diff.record",
            "Verified": "result.verify",
            "apply": "result.apply",
            "check_signature": "signing.checking",
            "compare": "algebra.compare",
            "compose": "algebra.compose",
            "convert": "bridges",
            "extract": "extraction.extract",
            "extract_many": "extraction.many",
            "fingerprint": "checkpoints.fingerprint",
            "invert": "algebra.invert",
            "load": "result.apply",
            "merge": "algebra.merge.merge",
            "open": "diff.diff:open_diff",
            "open_checkpoint": "checkpoints",
            "rebase": "algebra.rebase",
            "rename": "algebra.rename",
            "sign": "signing.making",
            "stats": "report.stats",
            "verify": "result.verify",
        },
        parts=("live", "report", "signing", "train"),
    )

__version__ = "0.1.0"
"""The library's version; that of the format stands in `diffpack.format.frame`."""
__all__ = [
    "Applied",
    "Checkpoint",
    "Comparison",
    "Converted",
    "Diff",
    "DiffpackError",
    "Rebased",
    "Renamed",
    "Stats",
    "TensorDiff",
    "Verified",
    "__version__",
    "apply",
    "check_signature",
    "compare",
    "compose",
    "convert",
    "extract",
    "extract_many",
    "fingerprint",
    "invert",
    "load",
    "merge",
    "open",
    "open_checkpoint",
    "rebase",
    "rename",
    "sign",
    "stats",
    "verify",
]
