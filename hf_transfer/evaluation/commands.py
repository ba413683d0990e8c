"""The commands `hf-transfer evaluate` and `hf-transfer predict`.

Knows what they do in which order and what they print. Their flags are in `hf_transfer.evaluation.options`; what is
measured and predicted is made next door. Everything heavy is imported after the command line has been read, so that
`--help` and mistakes answer at once.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_transfer.errors import UserError
from hf_transfer.evaluation.options import OUTPUT_SUFFIXES, evaluate_parser, predict_parser
from hf_transfer.evaluation.saved_run import changed_data_note, data_config, resolve_model

if TYPE_CHECKING:
    from hf_transfer.data.image_data import ImageData
    from hf_transfer.evaluation.evaluator import Evaluation
    from hf_transfer.evaluation.prediction import Prediction

_MAX_CLASS_LINES = 30


def evaluate_command(argv: Sequence[str]) -> int:
    """Measures a model on a split of a data set and prints the result.

    Args:
        argv (`Sequence[str]`):
            What follows `hf-transfer evaluate`.

    Returns:
        `int`: 0.

    Raises:
        [`~hf_transfer.errors.UserError`]: for every mistake that the user can mend.
    """
    options = evaluate_parser().parse(argv)
    _check_at_least_one("--batch_size", options.batch_size)
    if options.output and Path(options.output).is_dir():
        raise UserError(f"--output {options.output} is a folder.", "a file", f"--output {options.output}/result.json")
    model, run = resolve_model(options.model)
    config = data_config(options, run)

    from hf_transfer.data.loading import load_image_data
    from hf_transfer.evaluation.evaluator import evaluate_model

    data = load_image_data(config)
    evaluation = evaluate_model(
        model,
        data.split(options.split),
        options.split,
        data.label_names,
        train_counts=data.class_counts("train"),
        extra_metrics=options.metrics,
        batch_size=options.batch_size,
    )
    note = changed_data_note(run, config, data)
    _show_evaluation(options, model, data, evaluation, note)
    return 0


def predict_command(argv: Sequence[str]) -> int:
    """Labels picture files.

    Args:
        argv (`Sequence[str]`):
            What follows `hf-transfer predict`.

    Returns:
        `int`: 0, or 1 if a picture could not be read; the others are predicted and written all the same.

    Raises:
        [`~hf_transfer.errors.UserError`]: for every mistake that the user can mend.
    """
    options = predict_parser().parse(argv)
    _check_at_least_one("--batch_size", options.batch_size)
    _check_at_least_one("--top_k", options.top_k)
    output = _checked_output(options.output)

    from hf_transfer.evaluation.classifier import load_classifier
    from hf_transfer.evaluation.prediction import find_pictures, predict_files, write_predictions

    files = find_pictures(options.paths)
    classifier = load_classifier(resolve_model(options.model)[0])
    top_k = min(options.top_k, len(classifier.label_names))
    predictions = list(predict_files(classifier, files, top_k=top_k, batch_size=options.batch_size))
    if output is not None:
        write_predictions(predictions, output, top_k)
    if options.json:
        print(json.dumps([prediction.to_row(top_k) for prediction in predictions], indent=2, ensure_ascii=False))
    elif output is None:
        _print_predictions(predictions)
    else:
        print(f"{len(predictions)} rows written to {output}")
    unread = sum(prediction.error is not None for prediction in predictions)
    if unread:
        where = "see the column `error`" if output or options.json else "see above"
        print(f"{unread} of {len(predictions)} pictures could not be read; {where}.", file=sys.stderr)
    return 1 if unread else 0


def _check_at_least_one(flag: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{flag} {value}", "1 or more")


def _checked_output(given: str | None) -> Path | None:
    """Checks the file before hours of work go by, not after."""
    if given is None:
        return None
    path = Path(given).expanduser()
    if path.suffix.lower() not in OUTPUT_SUFFIXES or path.is_dir():
        raise UserError(
            f"--output {given}", f"a file that ends in {', '.join(OUTPUT_SUFFIXES)}", "--output result.csv"
        )
    return path


def _show_evaluation(
    options: argparse.Namespace, model: str, data: "ImageData", evaluation: "Evaluation", note: str | None
) -> None:
    from hf_transfer.report import to_plain, write_json

    result = {
        "model": model,
        "dataset": data.name,
        "dataset_fingerprint": data.fingerprint,
        "note": note,
        **to_plain(evaluation),
    }
    if options.output:
        write_json(result, Path(options.output).expanduser())
    if options.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    if note:
        print(f"note: {note}", file=sys.stderr)
    print(format_evaluation(evaluation))
    if options.output:
        print(f"Written to {options.output}")


def format_evaluation(evaluation: "Evaluation") -> str:
    """Returns the metrics and a line for each class; of many classes those with the lowest F1."""
    low, high = evaluation.accuracy_interval
    lines = [f"{evaluation.split}: {evaluation.num_images} pictures in {evaluation.seconds:.1f} s"]
    width = max(len(name) for name in evaluation.metrics)
    for name, value in evaluation.metrics.items():
        interval = f"  (95 % interval {low:.4f} to {high:.4f})" if name == "accuracy" else ""
        lines.append(f"  {name:<{width}}  {value:.4f}{interval}")
    results = evaluation.per_class
    if len(results) > _MAX_CLASS_LINES:
        occurring = [result for result in results if result.f1 is not None]
        results = tuple(sorted(occurring, key=lambda result: result.f1 or 0.0)[:_MAX_CLASS_LINES])
        lines.append(f"The {len(results)} classes with the lowest F1, of {len(evaluation.per_class)}:")
    width = max(len("class"), *(len(result.label) for result in results))
    lines.append(f"  {'class':<{width}}  pictures  precision  recall      f1")
    for result in results:
        precision, recall, f1 = (
            "-" if value is None else f"{value:.4f}" for value in (result.precision, result.recall, result.f1)
        )
        lines.append(f"  {result.label:<{width}}  {result.count:>8}  {precision:>9}  {recall:>6}  {f1:>6}")
    return "\n".join(lines)


def _print_predictions(predictions: "Sequence[Prediction]") -> None:
    width = max(len(prediction.file) for prediction in predictions)
    for prediction in predictions:
        answers = [f"{label} {score:.4f}" for label, score in zip(prediction.labels, prediction.scores, strict=True)]
        print(f"{prediction.file:<{width}}  {', '.join(answers) or f'error: {prediction.error}'}")
