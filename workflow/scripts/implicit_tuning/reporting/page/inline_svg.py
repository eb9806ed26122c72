"""Figures inside a page: SVG with ids of its own, colors that follow the page, and a text for it."""

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

from markupsafe import Markup

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
# A larger drawing (a paper-sized grid of curves) is shown as its bitmap.
LARGEST_SVG = 700_000  # bytes
# Ink, paper and grey of the figures, as the page's own, which are others in the dark.
PAGE_COLORS = {"#000000": "var(--ink)", "#ffffff": "var(--paper)", "#595959": "var(--muted)"}
# matplotlib writes these in points, at which two more decimals cannot be seen.
DECIMALS = re.compile(r"-?\d+\.\d{3,}")
ROUNDED = ("d", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "transform", "points")


def drawing(svg: Path, prefix: str, title: str, description: str) -> Markup:
    """A figure for a page: its SVG, or the .png beside it where that would be too large.

    `prefix` is put before every id, since figures in one page would share theirs. `title` and
    `description` are for people who cannot see the figure.
    """
    inlined = inline_svg(svg, prefix, title, description)
    if len(inlined) <= LARGEST_SVG:
        return inlined
    bitmap = base64.b64encode(svg.with_suffix(".png").read_bytes()).decode("ascii")
    source = f"data:image/png;base64,{bitmap}"
    return Markup('<img src="{}" alt="{}. {}">').format(source, title, description)


def inline_svg(svg: Path, prefix: str, title: str, description: str) -> Markup:
    """Returns an SVG element for HTML; the arguments are those of `drawing`.

    Raises:
        ElementTree.ParseError: the file is not XML.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg.read_text(encoding="utf-8"))
    dropped = {f"{{{SVG}}}metadata", f"{{{SVG}}}style", f"{{{SVG}}}script"}
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in dropped]:
            parent.remove(child)
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, _adapted(name, value, prefix))
    _describe(root, prefix, title, description)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _adapted(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name in (f"{{{XLINK}}}href", "href") and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    if name in ROUNDED:
        value = DECIMALS.sub(_two_decimals, value)
    for color, own in PAGE_COLORS.items():
        value = value.replace(color, own) if name == "style" else value
    return value.replace("url(#", f"url(#{prefix}-")


def _two_decimals(number: re.Match) -> str:
    text = f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _describe(root: ElementTree.Element, prefix: str, title: str, description: str) -> None:
    for place, (tag, text) in enumerate({"title": title, "desc": description}.items()):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{prefix}-{tag}"})
        element.text = text
        root.insert(place, element)
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    # What matplotlib says in the style sheet that was dropped, which would rule the whole page.
    root.set("stroke-linejoin", "round")
    root.set("stroke-linecap", "butt")
