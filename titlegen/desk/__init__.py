"""The editor's desk: a page where a headline is chosen, checked and remembered, and the same for programs.

FastAPI answers; the page is plain HTML with lit-html, which renders text as text under a Content-Security-Policy
without inline script. docs/desk.md says why.
"""

from titlegen.desk.run import export, export_choices, export_preferences, serve_desk
from titlegen.desk.store import Store

__all__ = ["Store", "export", "export_choices", "export_preferences", "serve_desk"]
