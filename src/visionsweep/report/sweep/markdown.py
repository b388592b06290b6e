"""Text as Markdown (with GitHub's tables) that shows as it is, whatever characters it has."""

import html
import re
from collections.abc import Sequence
from urllib.parse import quote

from visionsweep.report.sweep.summary import Markup

# What MLflow's renderer (Showdown) and GitHub's rules both let a backslash escape. Without square brackets and angle
# brackets there is no link, picture or element, so the other characters mean nothing within a line.
_SPECIAL = re.compile(r"([\\`*_\[\]#|~])")
GAP = "&emsp;"
_URL_SAFE = "%/:?#@!$&'+,;=-._~"


def plain(text: str) -> str:
    """Return text with every character escaped that Markdown gives a meaning; line breaks become spaces."""
    text = html.escape(
        re.sub(r"\s+", " ", text), quote=False
    )  # an angle bracket takes no backslash there
    return _SPECIAL.sub(r"\\\1", text)


def strong(text: str) -> str:
    """Return bold text."""
    return f"**{plain(text)}**"


def code(text: str) -> str:
    """Return text in a code span; not for a table's cell, which a `|` would end."""
    text = re.sub(r"\s+", " ", text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{text}{space}{fence}"


def link(text: str, url: str | None) -> str:
    """Return a link, plain text without a URL."""
    # In an address, brackets and spaces end it and a pipe ends a table's cell.
    return plain(text) if not url else f"[{plain(text)}]({quote(url, safe=_URL_SAFE)})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown cells, the first row its head. MLflow sets cells without a gap: each ends in one."""
    head, *body = ([f"{cell}{GAP}" for cell in row] for row in rows)
    lines = [head, [":---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


MARKUP = Markup(plain=plain, code=code, strong=strong)
