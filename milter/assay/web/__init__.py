# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 6: the page, which shows in a browser what the store has. It changes nothing but who gets no reports.

`child` is the process, `app` answers requests, and `access` says which users may see pages. A page is a function that
returns a `parts.WebPage`: tables, plots and remarks as values. `render` writes them as HTML, and `export` writes a
table as CSV or JSON. So a new page is a module with such a function, and a row in `pages`.

Only this package imports starlette, jinja2, uvicorn and h11, and only in its own process.
"""
