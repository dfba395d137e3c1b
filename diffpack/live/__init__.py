"""Tasks in a running model: switched in place, exact to the bit; and diffs of tensors where they lie.

::

    from diffpack.live import TaskSwitcher

    switcher = TaskSwitcher(model, base="model-folder")
    switcher.add("sst2", "sst2.dpk")
    switcher.use("sst2")
    with switcher.task("rte") as version:
        ...
    switcher.use(None)

    model = diffpack.live.from_pretrained("model-folder", "sst2.dpk")     # one of transformers, on the base's memory
    diff = diffpack.live.extract(before, after)                           # tensors of torch, on any device
    diffpack.live.apply_(model, diff)

Needs the extra `[torch]`, `from_pretrained` also `[train]` (transformers); nothing else of diffpack imports this
package.
"""

from typing import TYPE_CHECKING

from diffpack.support.lazily import lazy_members

if TYPE_CHECKING:
    from diffpack.live.mixed.handlers.row_by_row import row_by_row
    from diffpack.live.models.pretrained import from_pretrained
    from diffpack.live.shared_memory import is_shared
    from diffpack.live.states.in_place import AppliedInPlace, apply_
    from diffpack.live.states.steps import Steps, extract
    from diffpack.live.switcher import TaskSwitcher
    from diffpack.live.tasks import Usage, Version
else:  # loaded when asked for: torch is
    __getattr__ = lazy_members(
        __name__,
        {
            "AppliedInPlace": "states.in_place",
            "Steps": "states.steps",
            "TaskSwitcher": "switcher",
            "Usage": "tasks",
            "Version": "tasks",
            "apply_": "states.in_place",
            "extract": "states.steps",
            "from_pretrained": "models.pretrained",
            "is_shared": "shared_memory",
            "row_by_row": "mixed.handlers.row_by_row",
        },
    )

__all__ = [
    "AppliedInPlace",
    "Steps",
    "TaskSwitcher",
    "Usage",
    "Version",
    "apply_",
    "extract",
    "from_pretrained",
    "is_shared",
    "row_by_row",
]
