"""Sphinx: `make docs` builds docs/_build/html."""

from cryogan import __version__

project, author, release = "CryoGAN", "The CryoGAN developers", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "runs"]
html_theme = "furo"
myst_heading_anchors = 3
autodoc_typehints = "description"
napoleon_attr_annotations = False  # numpy.str_ would be read as a reference
autodoc_member_order = "bysource"
suppress_warnings = ["myst.header"]
