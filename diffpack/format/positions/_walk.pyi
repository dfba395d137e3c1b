from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Classes = npt.NDArray[np.uint16]

def count(keys: Keys, width: int, counts: Integers, /) -> None: ...
def order(keys: Keys, width: int, table: Classes, starts: Integers, order: Integers, /) -> None: ...
def ranks(
    keys: Keys, width: int, table: Classes, seen: Integers, places: Integers, classes: Classes, ranks: Integers, /
) -> None: ...
def select(keys: Keys, width: int, table: Classes, bounds: Integers, ranks: Integers, places: Integers, /) -> None: ...
