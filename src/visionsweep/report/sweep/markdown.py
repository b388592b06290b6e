"""Text as Markdown with GitHub's tables, escaped so that it shows as it is."""

import html
import re
from collections.abc import Sequence
from urllib.parse import quote

from visionsweep.report.sweep.winner import Markup

# What a backslash escapes both for MLflow's renderer (Showdown) and by GitHub's rules. Without
# brackets there is no link, picture or element, so no other character means anything in a line.
_SPECIAL = re.compile(r"([\\`*_\[\]#|~])")
GAP = "&emsp;"
_URL_SAFE = "%/:?#@!$&'+,;=-._~"


def plain(text: str) -> str:
    """Return text with its Markdown escaped and its line breaks as spaces."""
    # an angle bracket takes no backslash in Showdown
    text = html.escape(re.sub(r"\s+", " ", text), quote=False)
    return _SPECIAL.sub(r"\\\1", text)


def strong(text: str) -> str:
    """Return bold text."""
    return f"**{plain(text)}**"


def code(text: str) -> str:
    """Return text in a code span. Not for a table, where a `|` would end the cell."""
    text = re.sub(r"\s+", " ", text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{text}{space}{fence}"


def link(text: str, url: str | None) -> str:
    """Return a link, or plain text without a URL."""
    # brackets and spaces end an address, and a pipe ends the cell of a table
    return plain(text) if not url else f"[{plain(text)}]({quote(url, safe=_URL_SAFE)})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown cells; the first row is its head.

    MLflow's page has no space between cells, so each ends in one.
    """
    head, *body = ([f"{cell}{GAP}" for cell in row] for row in rows)
    lines = [head, [":---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


MARKUP = Markup(plain=plain, code=code, strong=strong)
