"""Where links among a model's files may lead: within its folder, and from a hub's snapshot to the blobs it is made of.

A folder that somebody else made may hold a link to any file of the machine, and what a diff stores of it is published.
Weights are named by the user, or are read as weights and nothing else; side files are taken as they are found, so of
them only those that lead to the model's own count.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # the digest of its content, so only who knows it can link to it


def leads_out(path: Path, folder: Path) -> bool:
    """Tell whether a file found in a model folder is a link to a file that is not the model's.

    The model's are those in the folder, and blobs of a cache of huggingface_hub: `models--NAME/blobs/DIGEST`, beside
    the `snapshots` whose files are links to them. (It used to link large files from other folders there, too.)
    """
    if not path.is_symlink():
        return False
    real = Path(os.path.realpath(path))
    return not (real.is_relative_to(os.path.realpath(folder)) or _is_blob(real))


def _is_blob(real: Path) -> bool:
    blobs, model = real.parent, real.parent.parent
    own = blobs.name == "blobs" and model.name.startswith("models--") and (model / "snapshots").is_dir()
    return own and _BLOB.fullmatch(real.name) is not None
