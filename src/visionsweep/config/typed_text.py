"""Keys that hold text: their values stay as typed. Hydra's grammar reads `2026_11_28` as a number.

Keys of other components are known by their signature, which needs torch; there a number for text is
an error that says to quote it.
"""

import os
import re

from visionsweep.config.paths import PATH_KEYS

# Key -> words that mean something else there than the text.
_WORDS = dict.fromkeys(PATH_KEYS, ("null",)) | {
    "model.pretrained": ("null", "true", "false"),
    "data.image": (),
    **dict.fromkeys(("data.label", "data.group", "data.split_column"), ("null",)),
    **dict.fromkeys(("data.suffix", "data.separator"), ("null",)),
    **dict.fromkeys(("name", "study", "model.name", "optim.name"), ()),
    **dict.fromkeys(("objective.metric", "trainer.device", "tracking.experiment"), ()),
    **dict.fromkeys(("tracking.uri", "tracking.register"), ("null",)),
    **dict.fromkeys(("hydra.sweeper.study_name", "hydra.sweeper.warm_start"), ("null",)),
    "hydra.sweeper.confirm": ("null",),
    **dict.fromkeys(("hydra.run.dir", "hydra.sweep.dir"), ()),
}
# Text within brackets. data.label and hydra.sweeper.warm_start are text or a list.
_LISTS = (
    *("data.classes", "data.label", "data.keep_labels", "data.drop_labels"),
    "hydra.sweeper.warm_start",
)
# What Hydra reads as text, without quotes.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+\-]*")
_NOT_TEXT = re.compile(
    r"[+-]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[+-]?\d[\d_]*)?|[+-]?(inf|nan)|true|false|null",
    re.IGNORECASE,
)
_SWEEP = re.compile(r"[a-z_]+\(.*\)")  # choice(a,b), glob(*)


def quote_override(argument: str, *, is_multirun: bool = False) -> str:
    """Return a command-line argument whose text Hydra reads as it was typed.

    `name=1e3` and `data.root=~/my photos (old)` need no quotes. Arguments of other keys, quoted
    values and interpolations are returned unchanged; of values to sweep over, each is quoted.
    """
    key, equals, value = argument.partition("=")
    name = key.lstrip("+~")
    if not equals or value[:1] in ("'", '"') or "${" in value:
        return argument
    if name in _LISTS and value.startswith("["):
        items = re.fullmatch(r"\[([^\[\]'\"]+)\]", value)
        return f"{key}=[{_each(items[1])}]" if items else argument
    if name not in _WORDS or value in _WORDS[name]:
        return argument
    if name in PATH_KEYS:
        value = os.path.expanduser(value)
    if is_multirun and not os.path.exists(value):  # Path.exists raises for a name too long
        if _SWEEP.fullmatch(value):
            return argument
        if "," in value:
            return f"{key}={_each(value, _WORDS[name])}"
    return f"{key}={as_typed(value)}"


def quote(value: str) -> str:
    """Return `value` as a quoted string of Hydra's override grammar."""
    # In a quoted string only a backslash before a quote (or at its end) is special.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{escaped}'"


def as_typed(value: str) -> str:
    """Return text as an override's right side, quoted if Hydra would not read it as that text."""
    is_read_as_text = _PLAIN.fullmatch(value) and not _NOT_TEXT.fullmatch(value)
    return value if is_read_as_text else quote(value)


def _each(values: str, words: tuple[str, ...] = ()) -> str:
    """Quote the values that Hydra would read as numbers; others may have quotes of their own."""
    items = [item.strip() for item in values.split(",")]
    return ",".join(
        quote(item) if _NOT_TEXT.fullmatch(item) and item not in words else item for item in items
    )
