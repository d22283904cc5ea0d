"""Sphinx: the pages of this folder and the docstrings, as one site; `make docs`."""

# autodoc imports with typing.TYPE_CHECKING set, under which pydantic cannot build LlamaIndex's
# classes; what is imported before stays as it is.
import llama_index.core  # noqa: F401

from rerank_plugins import __version__

project = "rerank-plugins"
version = release = __version__
copyright = "rerank-plugins contributors"  # noqa: A001  (Sphinx's name)
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxarg.ext",
    "sphinx_copybutton",
]
html_theme = "furo"
html_title = "rerank-plugins"
html_static_path = ["_static"]
html_css_files = ["rtl.css"]
html_theme_options = {
    "source_repository": "https://github.com/rerank-plugins/rerank-plugins/",
    "source_branch": "main",
    "source_directory": "docs/",
}
myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3
default_role = "py:obj"

# Classes are described under the path that people import them from.
autodoc_default_options = {"members": True, "exclude-members": "model_post_init"}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_mock_imports = ["ray"]
# The frameworks' own docstrings are not ours to mend.
autodoc_inherit_docstrings = False
# Attributes in a docstring beside the fields of the dataclass would be described twice.
napoleon_use_ivar = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
suppress_warnings = ["ref.python"]
