"""Modules that a script needs and a machine may lack: one sentence where one is not there, and --help without any.

    from needs import need

    need("numpy", "torch")
    import numpy as np
    import torch
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PARTS = ("torch.nn", "torch.nn.functional", "rdkit.Chem")  # those that scripts import by name


class StandIn:
    """In the place of a module that --help does not use: every name in it, and every call, is the same again."""

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: object, **kwargs: object) -> StandIn:
        return self

    def __mro_entries__(self, bases: tuple) -> tuple:
        return (object,)


def need(*names: str) -> None:
    """Ends the script where one of these modules is missing; with --help, which uses none, stands in for it."""
    missing = [name for name in names if name not in sys.modules and importlib.util.find_spec(name) is None]
    if missing and not {"-h", "--help"} & set(sys.argv[1:]):
        sys.exit(f"{Path(sys.argv[0]).name} needs {', '.join(missing)}: tools/README.md says how")
    for name in missing:
        for module in (name, *(part for part in PARTS if part.startswith(name + "."))):
            sys.modules[module] = StandIn()
