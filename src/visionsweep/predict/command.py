"""The command `predict`: from arguments to a written submission; a mistake is one line."""

import sys
from collections.abc import Sequence

from visionsweep.errors import ConfigError, UserError
from visionsweep.machine import wait_passively
from visionsweep.predict.arguments import Arguments, describe_arguments, parse_arguments
from visionsweep.rundir.atomic import write_output
from visionsweep.streams import keep_streams


def main(argv: Sequence[str]) -> int:
    """Predict as `argv` asks; return the exit code: 1, with one line on stderr, for a mistake."""
    keep_streams()
    if any(argument in ("-h", "--help") for argument in argv):
        sys.stdout.write(describe_arguments() + "\n")
        return 0
    wait_passively()
    try:
        summary = run_prediction(parse_arguments(argv))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing was written\n")
        return 130
    sys.stdout.write(summary + "\n")
    return 0


def run_prediction(arguments: Arguments) -> str:
    """Write the submission and return a summary; first check everything that needs no model."""
    # torch takes seconds: not for --help or a wrong argument
    from visionsweep.predict.images import find_images
    from visionsweep.predict.infer import check_runs, predict
    from visionsweep.predict.submission import (
        make_template,
        probability_columns,
        render,
        summarize,
    )
    from visionsweep.training.devices import choose_device
    from visionsweep.training.predictor import load_predictor

    _check_out(arguments)
    found = find_images(arguments.data.predict, arguments.data.image, arguments.data.root)
    template = make_template(found, arguments.sample, arguments.id_column, arguments.label_column)
    device, _ = choose_device(arguments.device, key="device")
    predictors = [load_predictor(run_dir, device) for run_dir in arguments.run]
    check_runs(arguments.run, predictors, arguments.tta)
    class_names = predictors[0].class_names
    class_columns = []
    if arguments.label_column is None:
        class_columns = template.class_columns(class_names)
    new_columns = []
    if arguments.probabilities and not class_columns:
        new_columns = [f"prob_{name}" for name in class_names]
    template.check_new_columns(new_columns)
    probabilities = predict(
        [image.path for image in template.images],
        predictors,
        batch_size=arguments.batch_size,
        tta=arguments.tta,
        device=device,
    )
    preds = probabilities.argmax(dim=1).tolist()
    labels = [class_names[pred] if arguments.labels == "names" else str(pred) for pred in preds]
    if class_columns:
        columns = probability_columns(class_columns, probabilities)
    else:
        assert template.label is not None
        columns = {template.label: labels} | probability_columns(new_columns, probabilities)
    try:
        write_output(arguments.out, render(template, columns))
    except OSError as error:
        raise UserError(
            f"out: {arguments.out} cannot be written ({error.strerror}); choose another file"
        ) from error
    note = f"left out {found.left_out}\n" if found.left_out else ""
    return f"{note}{summarize(labels)}\nwrote {arguments.out}"


def _check_out(arguments: Arguments) -> None:
    out = arguments.out
    if out.is_dir() or not out.absolute().parent.is_dir():
        problem = "is a folder" if out.is_dir() else "is in a folder that does not exist"
        raise ConfigError(f"out: {out} {problem}; expected a file in a folder that exists")
    for name, source in (("sample", arguments.sample), ("data.predict", arguments.data.predict)):
        if source is not None and out.resolve() == source.resolve():
            raise ConfigError(f"out: {out} would overwrite {name}; choose another name")
