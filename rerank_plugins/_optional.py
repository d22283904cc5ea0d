"""Imports of packages that the user may not have."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from rerank_plugins.errors import MissingDependencyError


def require(module: str, extra: str) -> Any:
    """The module, imported now.

    Args:
        module: What to import, as in ``import module``.
        extra: The extra of this package that installs it.

    Raises:
        MissingDependencyError: It is not installed. A module that is there but fails to import
            raises its own error: installing it again would not help.
    """
    if find_spec(module.partition(".")[0]) is None:
        raise MissingDependencyError(
            f"{module} is needed and not installed: pip install 'rerank-plugins[{extra}]'"
        )
    return import_module(module)
