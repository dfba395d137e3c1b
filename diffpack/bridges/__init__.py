"""Bridges: diffs in other tools' formats, and those formats as diffs. One file a tool.

A bridge takes facts from a tool's files and runs none of its code: no pickle is executed, no name becomes a path, and
sizes are compared before memory is taken.
"""

from diffpack.bridges.convert import Converted, convert
from diffpack.bridges.registry import FORMATS

__all__ = ["FORMATS", "Converted", "convert"]
