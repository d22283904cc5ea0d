"""Sphinx: the docstrings of every module, as one site; `make docs`."""

# autodoc imports with typing.TYPE_CHECKING set, under which pydantic cannot build LlamaIndex's
# classes; what is imported before stays as it is.
import llama_index.core  # noqa: F401

project = "rerank-plugins"
extensions = ["sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
apidoc_modules = [
    {
        "path": "../rerank_plugins",
        "destination": "api",
        "exclude_patterns": ["**/__main__.py"],
        "separate_modules": True,
        "module_first": True,
        "max_depth": 1,
    }
]
exclude_patterns = ["api/modules.rst"]
html_theme = "furo"
default_role = "py:obj"
# A package that gathers its modules' names would describe each a second time.
autodoc_default_options = {"ignore-module-all": True}
# Attributes in a docstring beside the fields of the dataclass, likewise.
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_mock_imports = ["ray"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# The frameworks' own docstrings are not ours to mend.
autodoc_inherit_docstrings = False
suppress_warnings = ["ref.python"]
