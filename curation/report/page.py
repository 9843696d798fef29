"""The report as one HTML page without a script, whose policy forbids any request: the sections in their order."""

from __future__ import annotations

from html import escape
from importlib import resources

from curation.progress import track
from curation.report.facts import Facts
from curation.report.section import Section, find_sections

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
THEMES = ("auto", "light", "dark")


def render_page(facts: Facts) -> str:
    """The whole page, whose length grows with the number of rules and columns and not with the rows."""
    sections = find_sections()
    parts = [
        _render_section(number, section, section.render(facts))
        for number, section in enumerate(track(sections, len(sections), "report", "section"))
    ]
    links = "".join(f'<a href="#s{number}">{escape(each.title)}</a>' for number, each in enumerate(sections))
    style = resources.files("curation.report").joinpath("style.css").read_text(encoding="utf-8")
    name = escape(facts.root.base.rstrip("/").rsplit("/", 1)[-1])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>{name}: curation report</title>'
        f"<style>{style}</style></head><body><header><h1>{name}</h1>{_render_themes()}<nav>{links}</nav></header>"
        f"<main>{''.join(parts)}</main></body></html>\n"
    )


def _render_section(number: int, section: Section, html: str) -> str:
    return f'<section id="s{number}"><h2>{escape(section.title)}</h2>{html}</section>'


def _render_themes() -> str:
    """The choice of light and dark, which the style sheet alone obeys."""
    choices = "".join(
        f'<label><input type="radio" name="theme" id="{theme}"{" checked" if theme == "auto" else ""}>{theme}</label>'
        for theme in THEMES
    )
    return f'<fieldset class="theme"><legend>colours</legend>{choices}</fieldset>'
