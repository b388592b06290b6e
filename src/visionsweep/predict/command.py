"""The command `predict`: from arguments to a written submission; a mistake is one line."""

import sys
from collections.abc import Sequence

from visionsweep.errors import ConfigError, UserError
from visionsweep.machine import wait_passively
from visionsweep.predict.arguments import Arguments, describe_arguments, parse_arguments
from visionsweep.rundir.atomic import is_stdout, open_output
from visionsweep.streams import keep_streams


def main(argv: Sequence[str]) -> int:
    """Predict as `argv` asks; return the exit code: 1, with one line on stderr, for a mistake."""
    keep_streams()
    if any(argument in ("-h", "--help") for argument in argv):
        sys.stdout.write(describe_arguments() + "\n")
        return 0
    wait_passively()
    try:
        arguments = parse_arguments(argv)
        summary = run_prediction(arguments)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing was written\n")
        return 130
    (sys.stderr if is_stdout(arguments.out) else sys.stdout).write(summary + "\n")
    return 0


def run_prediction(arguments: Arguments) -> str:
    """Write the submission and return a summary; first check everything that needs no model."""
    # torch takes seconds: not for --help or a wrong argument
    from visionsweep.predict.deciding import decide_labels, with_decisions
    from visionsweep.predict.images import find_images
    from visionsweep.predict.infer import check_runs, predict
    from visionsweep.predict.networks import load_networks
    from visionsweep.predict.submission import make_template
    from visionsweep.predict.writing import Columns, name_images, write_rows
    from visionsweep.training.devices import choose_device

    _check_out(arguments)
    data, on_bad_image = arguments.data, arguments.on_bad_image
    needs_all = on_bad_image == "error"
    found = find_images(data.predict, data.image, data.root, needs_all=needs_all)
    template = make_template(
        found,
        *(arguments.sample, arguments.id_column, arguments.label_column),
        needs_all=needs_all,
    )
    device, _ = choose_device(arguments.device, key="device")
    members, lines = load_networks(arguments.run, device)
    check_runs(members, arguments.tta, on_bad_image)
    class_names = members[0].predictor.class_names
    columns = template.class_columns(class_names) if arguments.label_column is None else []
    has_label = not columns
    if arguments.probabilities and has_label:
        columns = [f"prob_{name}" for name in class_names]
        template.check_new_columns(columns)
    labels = class_names if arguments.labels == "names" else list(map(str, range(len(class_names))))
    _check_top_k(arguments.top_k, labels, has_label=has_label)
    decisions, reasons = decide_labels(arguments, class_names, has_label=has_label)
    batches = predict(
        [image.path for image in template.images],
        members,
        batch_size=arguments.batch_size,
        tta=arguments.tta,
        device=device,
        on_bad_image=on_bad_image,
    )
    try:
        with open_output(arguments.out) as stream:
            written = write_rows(
                stream,
                template,
                Columns(template.label if has_label else None, labels, columns, arguments.top_k),
                with_decisions(batches, decisions),
                skip_bad=on_bad_image == "skip",
            )
    except OSError as error:
        raise UserError(
            f"out: {arguments.out} cannot be written ({error.strerror}); choose another file"
        ) from error
    lines += reasons
    lines += [f"left out {found.left_out}"] if found.left_out else []
    if written.bad:
        outcome = "left out" if on_bad_image == "skip" else "filled with the class frequencies"
        lines.append(name_images(written.bad, len(template.images), outcome))
    if written.repaired:
        outcome = "predicted from what could be decoded"
        lines.append(name_images(written.repaired, len(template.images), outcome))
    return "\n".join([*lines, written.summary(), f"wrote {arguments.out}"])


def _check_top_k(top_k: int, labels: Sequence[str], *, has_label: bool) -> None:
    if top_k == 1:
        return
    if not has_label:
        raise ConfigError(
            "top_k: the sample has one column per class and none for labels; leave top_k out, or "
            "set label_column"
        )
    if top_k > len(labels):
        raise ConfigError(f"top_k: expected at most {len(labels)}, the classes, got {top_k}")
    spaced = [label for label in labels if any(map(str.isspace, label))]
    if spaced:
        raise ConfigError(
            f"top_k: labels are separated by spaces, and '{spaced[0]}' has one; set labels=indices"
        )


def _check_out(arguments: Arguments) -> None:
    out = arguments.out
    if out.is_dir() or not out.absolute().parent.is_dir():
        problem = "is a folder" if out.is_dir() else "is in a folder that does not exist"
        raise ConfigError(f"out: {out} {problem}; expected a file in a folder that exists")
    for name, source in (("sample", arguments.sample), ("data.predict", arguments.data.predict)):
        if source is not None and out.resolve() == source.resolve():
            raise ConfigError(f"out: {out} would overwrite {name}; choose another name")
