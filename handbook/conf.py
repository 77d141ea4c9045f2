"""What Sphinx is told. The pages are Markdown as GitHub has it; a reader's browser fetches nothing from elsewhere."""

from headstart import __version__

project = "Headstart"
version = release = __version__
html_title = f"Headstart {__version__}"
extensions = ["myst_parser"]
root_doc = "index"
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
myst_enable_extensions = ["tasklist", "attrs_inline"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_show_copyright = False
html_copy_source = False
# Blocks of our pages without a language are shells, files and outputs of many kinds.
highlight_language = "none"
