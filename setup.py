"""The one thing pyproject.toml has no stable words for: a part that is compiled, where that can be done.

Where it cannot, the installation goes on without it, and numpy does the same (diffpack/format/positions/split.py).
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "diffpack.format.positions._walk",
            ["diffpack/format/positions/_walk.c"],
            optional=True,
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},  # one wheel for every Python from 3.11 on
)
