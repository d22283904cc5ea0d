"""The exception tree."""

from __future__ import annotations

import inspect

import pytest

from rerank_plugins import errors

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if found.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_hangs_on_the_root(error: type[Exception]) -> None:
    """One ``except`` catches all that the library raises."""
    assert issubclass(error, errors.RerankPluginsError)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [(errors.InvalidInputError, ValueError), (errors.MissingDependencyError, ImportError)],
)
def test_errors_are_the_builtin_ones_that_callers_expect(
    error: type[Exception], builtin: type[Exception]
) -> None:
    """Code that knows nothing of this library can still catch them."""
    assert issubclass(error, builtin)


@pytest.mark.parametrize("error", CLASSES)
def test_the_tree_in_the_docstring_shows_every_error_below_its_parent(
    error: type[Exception],
) -> None:
    """The drawing is the code's own: each error stands there, deeper than its parent."""
    lines = (errors.__doc__ or "").splitlines()

    def depth(name: str) -> int:
        return next(
            len(line) - len(line.lstrip(" │├└─"))
            for line in lines
            if line.lstrip(" │├└─").split(" ")[0] == name
        )

    if error is not errors.RerankPluginsError:
        assert depth(error.__name__) > depth(error.__mro__[1].__name__)
