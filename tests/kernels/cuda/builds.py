"""Keeps what was compiled, under the SHA-256 of all that went into it: the next run compiles nothing.

`make clean` removes it.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parents[3] / ".pytest_cache" / "kernels"


def kept(name: str, ingredients: list[str], build: Callable[[Path], object]) -> Path:
    """The file that `build` writes to the path that it is given, of an earlier run where there is one.

    `ingredients`: everything that decides what is built, the compiler's version and flags included.
    """
    digest = hashlib.sha256("\0".join(ingredients).encode()).hexdigest()
    made = FOLDER / f"{digest[:32]}-{name}"
    if not made.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        # Another process may be at the same: whoever is last replaces the file by its like.
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            build(Path(folder) / name)
            os.replace(Path(folder) / name, made)
    return made
