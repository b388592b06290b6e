"""The parts of the report besides trials and charts: effects, classes, pictures, failures."""

import base64
import functools
import html
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionsweep.report.sweep.effects import effects
from visionsweep.report.sweep.findings import Findings, Picture
from visionsweep.report.sweep.winner import Summary
from visionsweep.rundir.copies import Copies
from visionsweep.text import counted, objective_text, shortened

_MAX_SIDE = 96  # pixels of a picture
_MAX_FAILURES = 50
_MAX_CLASSES = 100
_escape = functools.partial(html.escape, quote=True)


def command_section(findings: Findings) -> str:
    """Return how the winner is trained again."""
    if findings.command is None:
        return ""
    return f'<p class="command">Train it again: <code>{_escape(findings.command)}</code></p>'


def ranges_section(findings: Findings) -> str:
    """Return the ranges that may end too early, and how they are widened."""
    ranges = findings.ranges
    lines = [f"<p>{_escape(line)}.</p>" for line in ranges.lines]
    if lines and ranges.command is not None:
        lines.append(f'<p class="command">Widen: <code>{_escape(ranges.command)}</code></p>')
    return "\n".join(lines)


def effects_section(summary: Summary) -> str:
    """Return the mean objective at each value of each parameter."""
    found = effects(summary.record, summary.ordered_keys())
    rows = []
    for key, levels in found.items():
        for number, level in enumerate(levels):
            name = f"<code>{_escape(shortened(key, 40))}</code>" if number == 0 else ""
            half = level.half_width
            interval = "" if half is None else f"{level.mean - half:.4f} to {level.mean + half:.4f}"
            cells = (
                *(name, _escape(level.name), objective_text(level.mean), interval),
                *(str(level.num_complete), str(level.num_pruned)),
            )
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    if not rows:
        return ""
    note = (
        f"Mean {summary.record.metrics[0]} of the complete trials with each value, and its 95 % "
        "interval over them; all other parameters vary too. Pruned trials are not in the means: a "
        "value that is often pruned looks better than it is."
    )
    head = ("parameter", "value", "mean", "95 %", "complete", "pruned")
    return _section("Effect of each parameter", note, _table(head, rows))


def classes_section(summary: Summary, findings: Findings) -> str:
    """Return the F1 of each class of the winner."""
    if not findings.classes or summary.winner is None:
        return ""
    shown = findings.classes[:_MAX_CLASSES]
    rows = [
        f"<tr><td>{_escape(shortened(c.name, 40))}</td><td>{c.f1:.3f}</td>"
        f"<td>{c.low:.3f} to {c.high:.3f}</td><td>{c.support:,}</td><td>{_bar(c.low, c.high, c.f1)}"
        "</td></tr>"
        for c in shown
    ]
    note = (
        f"Trial #{summary.winner.number} on {counted(findings.num_images, 'validation image')}, "
        "the worst class first; 95 % intervals over images."
    )
    if len(findings.classes) > len(shown):
        note += f" The worst {len(shown)} of {len(findings.classes)}."
    return _section("Classes", note, _table(("class", "F1", "95 %", "images", ""), rows))


def mistakes_section(findings: Findings) -> str:
    """Return the most confident mistakes of the winner, as pictures."""
    if not findings.mistakes:
        return ""
    note = "The winner's wrong predictions on validation images, the most confident first."
    return _section("Worst mistakes", note, _sheet(findings.mistakes))


def suspects_section(findings: Findings) -> str:
    """Return the images whose label is doubtful."""
    title = "Suspected label errors"
    if findings.suspects_note:
        return _section(title, findings.suspects_note, "")
    if not findings.suspects:
        return ""
    shown = findings.suspects
    note = (
        f"{counted(findings.num_suspects, 'validation image')} whose label confident learning "
        "doubts, the least credible first. Look at them before you change anything: a model that "
        "is often wrong doubts correct labels."
    )
    if findings.num_suspects > len(shown):
        note += f" Shown: {len(shown)}."
    return _section(title, note, _sheet(shown))


def copies_section(findings: Findings) -> str:
    """Return images that are, or look like, one with another label or in another split."""
    copies = findings.copies
    if copies is None:
        return ""
    note = (
        f"{counted(copies.num_pairs, 'image')} identical to, or (with data.near_duplicates) "
        "looking like, another one that has another label or is in another split (train, val, "
        "test, or a fold that the data brings)."
    )
    if copies.num_pairs > len(copies.ids):
        note += f" Shown: {len(copies.ids)}."
    return _section("Copies with other labels or splits", note, _pairs(copies))


def failures_section(summary: Summary) -> str:
    """Return the failed trials with their reasons."""
    failed = [trial for trial in summary.record.trials if trial.state == "failed"]
    rows = [
        f'<tr><td>#{trial.number}</td><td class="long">{_escape(trial.error or "unknown")}</td>'
        f"<td><code>{_escape(trial.directory)}</code></td></tr>"
        for trial in failed[:_MAX_FAILURES]
    ]
    if not rows:
        return ""
    more = len(failed) - len(rows)
    note = f"{more} more are in trials.csv." if more else ""
    return _section("Failures", note, _table(("trial", "reason", "directory"), rows))


def _section(title: str, note: str, body: str) -> str:
    return f'<section><h2>{title}</h2><p class="note">{_escape(note)}</p>{body}</section>'


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f"<th>{_escape(name)}</th>" for name in head)
    return f'<div class="wide"><table><tr>{cells}</tr>{"".join(rows)}</table></div>'


def _bar(low: float, high: float, value: float) -> str:
    """Return the interval as a bar within 0..1, with a mark at the value."""
    x, width, mark = (round(100 * v, 1) for v in (low, max(high - low, 0.005), value))
    return (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none">'
        f'<rect width="100" height="8" fill="#eee"/><rect x="{x}" width="{width}" height="8" '
        f'fill="#9ecae1"/><rect x="{mark - 0.5}" width="1" height="8" fill="#222"/></svg>'
    )


def _sheet(pictures: Sequence[Picture]) -> str:
    items = []
    for picture in pictures:
        arrow = f"{shortened(picture.label, 24)} \u2192 {shortened(picture.seen, 24)}"
        items.append(
            f'<figure>{_image(picture.image)}<figcaption><b title="label and prediction">'
            f"{_escape(arrow)}</b> {picture.confidence:.2f}<br>"
            f'<span title="{_escape(_plain(picture.id))}">{_file(picture.id)}</span></figcaption>'
            "</figure>"
        )
    return f'<div class="sheet">{"".join(items)}</div>'


def _pairs(copies: Copies) -> str:
    items = []
    for ids, classes, splits, images in zip(
        copies.ids.tolist(),
        copies.classes.tolist(),
        copies.splits.tolist(),
        copies.images,
        strict=True,
    ):
        lines = "<br>".join(
            f"<b>{_escape(shortened(name, 24))}</b> ({split}) {_file(image)}"
            for name, split, image in zip(classes, splits, ids, strict=True)
        )
        both = "".join(_image(image) for image in images)
        items.append(f"<figure>{both}<figcaption>{lines}</figcaption></figure>")
    return f'<div class="sheet pairs">{"".join(items)}</div>'


def _file(image: str) -> str:
    return _escape(shortened(_plain(image).rpartition("/")[2], 26))


def _plain(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _image(image: NDArray[np.uint8] | None) -> str:
    """Return an image as a PNG within the page."""
    if image is None:
        return '<div class="none">no picture kept</div>'
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE))
    content = io.BytesIO()
    if max(image.shape[1:]) > 32 and len(image) == 3:
        picture.save(content, "JPEG", quality=85)
        kind = "jpeg"
    else:
        picture.save(content, "PNG", optimize=True)
        kind = "png"
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return f'<img alt="" src="data:image/{kind};base64,{encoded}">'
