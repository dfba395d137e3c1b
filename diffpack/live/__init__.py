"""Tasks in a running model: switched in place, exact to the bit.

::

    from diffpack.live import TaskSwitcher

    switcher = TaskSwitcher(model, base="model-folder")
    switcher.add("sst2", "sst2.dpk")
    switcher.use("sst2")
    with switcher.task("rte") as version:
        ...
    switcher.use(None)

Needs the extra `[torch]`; nothing else of diffpack imports this package.
"""

from typing import TYPE_CHECKING

from diffpack.support.lazily import lazy_members

if TYPE_CHECKING:
    from diffpack.live.switcher import TaskSwitcher
    from diffpack.live.tasks import Usage, Version
else:  # loaded when asked for: torch is
    __getattr__ = lazy_members(
        __name__,
        {
            "TaskSwitcher": "switcher",
            "Usage": "tasks",
            "Version": "tasks",
        },
    )

__all__ = [
    "TaskSwitcher",
    "Usage",
    "Version",
]
