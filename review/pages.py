"""Pages from templates: escaped, in the visitor's language and dress."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

import stepgold
from review.texts import LANGUAGES, text
from stepgold.browsing import Browser

HERE = Path(__file__).parent
STATIC = HERE / "static"
SETTINGS = {
    "lang": tuple(LANGUAGES),
    "theme": ("system", "light", "dark"),
    "size": ("normal", "small", "large"),
}
"""What a visitor may choose; each is a cookie, the first value its default."""
CLIPPED = 20_000
"""Characters of one text that a page shows unless it is asked for all of them."""

# Controls are shown by name: they would hide text, or show it in another order.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def shown(value: object) -> Markup:
    """Any text as HTML: escaped, isolated from the direction of its surroundings, controls named.

    Line breaks are kept by the style of the element around it.
    """
    found = str(escape(str(value).replace("\r\n", "\n")))
    named = _CONTROL.sub(lambda found: f'<span class="control">U+{ord(found[0]):04X}</span>', found)
    return Markup(f"<bdi>{named}</bdi>")


def plain(value: object) -> str:
    """Any text for a place that holds no markup, as a title or an option: controls are named."""
    return _CONTROL.sub(lambda found: f"U+{ord(found[0]):04X}", str(value))


def clipped(value: object, limit: int | None = CLIPPED) -> str:
    """The text cut to a number of characters, with an ellipsis; None leaves it whole."""
    found = str(value)
    return found if limit is None or len(found) <= limit else found[:limit] + "…"


def marked(value: str, spans: Sequence[tuple[int, int]]) -> Markup:
    """The text as `shown`, with these parts (start, end; in characters) marked."""
    parts, place = [], 0
    for start, end in sorted(spans):
        start = max(start, place)
        if end > start:
            parts += [
                shown(value[place:start]),
                Markup("<mark>%s</mark>") % shown(value[start:end]),
            ]
            place = end
    return Markup("").join([*parts, shown(value[place:])])


def figure(value: float | None, digits: int = 2) -> str:
    """A figure with its digits; an en dash where it is undefined."""
    return "–" if value is None else f"{value:.{digits}f}"


def count(value: int) -> str:
    """A count with separators."""
    return f"{value:,}"


def address(path: str, values: Mapping[str, Any], **changes: Any) -> str:
    """A path with a query string of the values that are set, some of them changed."""
    chosen = {
        name: value for name, value in {**values, **changes}.items() if value not in (None, "")
    }
    return f"{path}?{urlencode(chosen)}" if chosen else path


class Pages:
    """Renders templates."""

    def __init__(self, lang: str, *folders: Path) -> None:
        """Read the templates of these folders, then our own.

        Args:
            lang: language of visitors who have not chosen one.
            folders: of further templates.
        """
        self.lang = lang
        self._templates = Environment(
            loader=FileSystemLoader([*folders, HERE / "templates"]),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            shown=shown, plain=plain, clipped=clipped, marked=marked, figure=figure, count=count
        )
        self._templates.globals.update(address=address, LANGUAGES=LANGUAGES)

    def chosen(self, request: Request) -> dict[str, str]:
        """The visitor's settings."""
        found = {name: request.cookies.get(f"stepgold-{name}", "") for name in SETTINGS}
        defaults = {"lang": self.lang, "theme": "system", "size": "normal"}
        return {
            name: found[name] if found[name] in SETTINGS[name] else defaults[name]
            for name in SETTINGS
        }

    def render(
        self, request: Request, template: str, *, status: int = 200, **context: Any
    ) -> HTMLResponse:
        """A page from a template.

        Templates know `t(key, **values)` for the texts of the catalog, `settings`, `visitor`,
        `here` (path and query of the page), and `form_token()`, which makes the hidden field that
        every form that changes something needs.
        """
        settings = self.chosen(request)
        tokens, visitor = request.app.state.form_tokens, request.state.visitor

        def form_token() -> Markup:
            token = tokens.issue(visitor.session)
            return Markup(f'<input type="hidden" name="form_token" value="{escape(token)}">')

        query = request.url.query
        common = {
            "t": partial(text, settings["lang"]),
            "settings": settings,
            "visitor": visitor,
            "form_token": form_token,
            "path": request.url.path,
            "here": request.url.path + (f"?{query}" if query else ""),
            "version": stepgold.__version__,
            "reviewing": request.app.state.reviewing,
        }
        page = self._templates.get_template(template).render({**common, **context})
        return HTMLResponse(page, status_code=status)


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What the pages of a server share."""

    browser: Browser
    """The workspace, open for reading."""
    pages: Pages
    """Templates and texts."""
    images: Path
    """The folder that holds all images."""
    allow_phi: bool = False
    """Whether problems marked `phi_removed: false` are shown."""


def site_of(request: Request) -> Site:
    """What the pages share."""
    found: Site = request.app.state.site
    return found


def see_other(path: str) -> RedirectResponse:
    """Send the browser to a page of this server after a form; a foreign address becomes `/`."""
    local = path.startswith("/") and not path.startswith(("//", "/\\"))
    return RedirectResponse(path if local else "/", status_code=303)
