"""Text that has to fit."""


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters, cut in its middle: what tells names apart is often at their end."""
    if len(text) <= limit:
        return text
    tail = (limit - 3) // 2
    return f"{text[: limit - 3 - tail]}...{text[len(text) - tail :]}"
