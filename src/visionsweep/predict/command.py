"""The predict command: from arguments to a written submission, and mistakes as one line."""

import sys
from collections.abc import Sequence

from visionsweep.errors import ConfigError, UserError
from visionsweep.predict.arguments import Arguments, describe_arguments, parse_arguments
from visionsweep.rundir.atomic import write_text


def main(argv: Sequence[str]) -> int:
    """Predict as `argv` asks and return the exit code: 1, with one line on stderr, for a mistake of the user's."""
    if any(argument in ("-h", "--help") for argument in argv):
        sys.stdout.write(describe_arguments() + "\n")
        return 0
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
    """Write the submission and return a summary. All that needs no model is checked before one is loaded."""
    # torch takes seconds: not for --help, or an argument that is wrong
    from visionsweep.predict.images import find_images
    from visionsweep.predict.infer import check_runs, predict
    from visionsweep.predict.submission import (
        make_template,
        render,
        render_class_columns,
        summarize,
    )
    from visionsweep.training.devices import choose_device
    from visionsweep.training.predictor import load_predictor

    _check_out(arguments)
    images = find_images(arguments.images, arguments.image_column, arguments.root)
    template = make_template(images, arguments.sample, arguments.id_column, arguments.label_column)
    device, _ = choose_device(arguments.device, key="device")
    predictors = [load_predictor(run_dir, device) for run_dir in arguments.runs]
    check_runs(arguments.runs, predictors, arguments.tta)
    class_names = predictors[0].class_names
    class_columns = template.class_columns(class_names) if arguments.label_column is None else None
    if (
        class_columns is None
        and arguments.label_column is None
        and template.seems_to_want_classes(class_names)
    ):
        raise ConfigError(
            f"label_column: {arguments.sample} has the columns {', '.join(template.header)}; say which of them holds "
            f"the label, or name one column a class exactly as the classes: {', '.join(class_names)}"
        )
    wants_new_columns = arguments.probabilities and class_columns is None
    columns = [f"prob_{name}" for name in class_names] if wants_new_columns else []
    template.check_new_columns(columns)
    probabilities = predict(
        [image.path for image in template.images],
        predictors,
        batch_size=arguments.batch_size,
        tta=arguments.tta,
        device=device,
    )
    preds = probabilities.argmax(dim=1).tolist()
    labels = [class_names[pred] if arguments.labels == "names" else str(pred) for pred in preds]
    if class_columns is not None:
        write_text(arguments.out, render_class_columns(template, class_columns, probabilities))
    else:
        write_text(arguments.out, render(template, labels, columns, probabilities))
    return f"{summarize(labels)}\nwrote {arguments.out}"


def _check_out(arguments: Arguments) -> None:
    out = arguments.out
    if out.is_dir() or not out.absolute().parent.is_dir():
        problem = "is a folder" if out.is_dir() else "is in a folder that does not exist"
        raise ConfigError(f"out: {out} {problem}; expected a file in a folder that exists")
    for name, source in (("sample", arguments.sample), ("data.predict", arguments.images)):
        if source is not None and out.resolve() == source.resolve():
            raise ConfigError(
                f"out: {out} is the file that {name} names, which would be lost; choose another name"
            )
