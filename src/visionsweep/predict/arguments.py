"""The `key=value` arguments of `predict`: their schema and their parser. No config is composed."""

# ruff: noqa: RUF009 - _key returns dataclasses.field(...)

import csv
import dataclasses
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visionsweep.data.paths import absolute
from visionsweep.errors import ConfigError
from visionsweep.program import command
from visionsweep.text import did_you_mean, first_line

VIEW_NAMES = ("none", "flip", "crop", "corners")  # predict/views.py, which imports torch
Labels = Literal["names", "indices"]
DecisionChoice = Literal["stored", "none", "auto", "prior", "offsets"]
OnBadImage = Literal["error", "skip", "fill", "repair"]


def _key(default: Any, meaning: str) -> Any:
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": meaning})
    return field(default=default, metadata={"help": meaning})


@dataclass
class DataArguments:
    """The images to predict."""

    predict: Path = _key(MISSING, "folder of images, or CSV file with a column of their paths")
    image: str | None = _key(None, "CSV column of the paths; default: path, image, file, ...")
    root: Path | None = _key(None, "folder that the paths start from; default: the CSV file's")


@dataclass
class DecisionArguments:
    """How labels follow from probabilities."""

    use: DecisionChoice = _key(
        "stored",
        "what the ensemble has (stored), none, or fit them to the run's own predictions: prior, "
        "offsets, or auto (where they clearly help)",
    )
    test_prior: str = _key("train", "class frequencies of the test: train, uniform or [0.2,0.8]")


@dataclass
class Arguments:
    """The arguments of `predict`. Paths that the user gave are absolute."""

    run: list[Path] = _key(
        MISSING, "directory of a run, of all its folds, or of an ensemble; [A,B] is their mean"
    )
    data: DataArguments = field(default_factory=DataArguments)
    out: Path = _key(Path("submission.csv"), "CSV file to write")
    sample: Path | None = _key(None, "sample submission; its rows, order and header are kept")
    id_column: str | None = _key(None, "default: the sample's first named column, or id")
    label_column: str | None = _key(None, "default: label, target, ..., or the only other column")
    labels: Labels = _key("names", "what the label column holds: names or indices")
    probabilities: bool = _key(False, "true adds a column prob_CLASS for each class")
    top_k: int = _key(1, "labels per image, the best first, separated by spaces")
    decisions: DecisionArguments = field(default_factory=DecisionArguments)
    tta: list[str] = _key(
        ["none"], "views to average: [none,flip,crop,corners]; tta=flip is short for [none,flip]"
    )
    on_bad_image: OnBadImage = _key(
        "error",
        "error, skip (no row), fill (training's class frequencies) or repair (what is there)",
    )
    batch_size: int = _key(128, "images decoded at a time; changes no number")
    device: str = _key("auto", "auto, cpu, cuda, cuda:N or mps")


def _fields(schema: type = Arguments, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each key, such as ``data.predict``, and its dataclass field."""
    for item in dataclasses.fields(schema):
        if item.type in (DataArguments, DecisionArguments):
            yield from _fields(item.type, f"{item.name}.")
        elif schema is DecisionArguments and item.name == "use":
            yield prefix.rstrip("."), item  # decisions=auto
        else:
            yield f"{prefix}{item.name}", item


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Return the arguments in `argv`.

    Raises `ConfigError` if one is unknown, repeated, missing or wrong.
    """
    config = OmegaConf.structured(Arguments)
    fields = dict(_fields())
    keys = ", ".join(fields)
    given = set()
    for text in argv:
        key, has_value, value = text.partition("=")
        if not has_value:
            raise ConfigError(f"{text}: expected key=value (keys: {keys})")
        if key not in fields:
            raise ConfigError(f"{key}: no such key{did_you_mean(key, fields)} (keys: {keys})")
        if key in given:
            raise ConfigError(f"{key}: given twice; give it once")
        given.add(key)
        try:
            # Not from_dotlist, which reads values as YAML: a path may hold any character.
            place = "decisions.use" if key == "decisions" else key
            OmegaConf.update(config, place, _value(key, value, fields[key].type))
            OmegaConf.select(config, place)  # fails now if it is an interpolation of nothing
        except OmegaConfBaseException as error:
            raise ConfigError(f"{text}: {first_line(error)}") from error
    for key in fields:
        if key in OmegaConf.missing_keys(config):
            meaning = fields[key].metadata["help"]
            raise ConfigError(f"{key}: not set; give {key}=... ({meaning})")
    for key in ("batch_size", "top_k"):
        if config[key] < 1:
            raise ConfigError(f"{key}: expected at least 1, got {config[key]}")
    arguments: Arguments = OmegaConf.to_object(config)  # type: ignore[assignment]
    arguments.tta = _views(arguments.tta)
    return arguments


def describe_arguments() -> str:
    """Return what `--help` shows: one line per key."""
    lines = [
        f"usage: {command('predict')} run=outputs/NAME data.predict=FOLDER [key=value ...]",
        "",
    ]
    for key, item in _fields():
        default = "none" if key == "tta" else item.default
        note = "" if default is None else f" (default: {str(default).lower()})"
        note = " (required)" if default == MISSING else note
        lines.append(f"  {key:<21}{item.metadata['help']}{note}")
    return "\n".join(lines)


def _value(key: str, text: str, kind: Any) -> Any:
    """Return what OmegaConf turns into a value of the annotation ``kind``."""
    if not text:
        raise ConfigError(f"{key}: got nothing after '='; leave the key out for its default")
    options = (kind, *typing.get_args(kind))
    if text == "null" and type(None) in options:
        return None
    if kind == list[Path]:
        return [absolute(key, item) for item in _items(key, text)]
    if kind == list[str]:
        is_list = text.startswith("[")
        return _items(key, text) if is_list or text == "none" else ["none", text]
    return absolute(key, text) if Path in options else text


def _views(names: list[str]) -> list[str]:
    """Return the names of views. Raises `ConfigError` for one that is unknown or repeated."""
    for name in names:
        if name not in VIEW_NAMES:
            hint = did_you_mean(name, VIEW_NAMES)
            raise ConfigError(f"tta: expected views ({', '.join(VIEW_NAMES)}), got '{name}'{hint}")
        if names.count(name) > 1:
            raise ConfigError(f"tta: {name} is given twice; give it once")
    return names


def _items(key: str, text: str) -> list[str]:
    """Return the items of `[a,b]`, or `text` itself. Quotes keep a comma: `["a,b",c]`."""
    if not (text.startswith("[") and text.endswith("]")) or Path(text).exists():
        return [text]
    items = [item.strip() for item in next(csv.reader([text[1:-1]], skipinitialspace=True))]
    if not items or not all(items):
        raise ConfigError(
            f"{key}: expected a list without gaps, e.g. [outputs/a,outputs/b], got '{text}'"
        )
    return items
