"""The flags of `hf-transfer evaluate` and `hf-transfer predict`.

Knows names, defaults and help texts. Does not know what any of them does, and imports nothing heavy.
"""

import argparse

from hf_transfer.command_parser import CommandParser

OUTPUT_SUFFIXES = (".csv", ".jsonl", ".parquet")


def evaluate_parser() -> CommandParser:
    """Returns the parser of `hf-transfer evaluate`."""
    parser = CommandParser(
        prog="hf-transfer evaluate",
        description="Measure a model on a data set: loss, accuracy with its 95 % interval, per-class results.",
        allow_abbrev=False,
    )
    _add_model(parser)
    add = parser.add_argument
    add("--dataset", help="As for training; by default the one that the run was trained on, split in the same way.")
    add("--split", choices=("test", "validation", "train"), default="test", help="Default: test.")
    add("--dataset_config", help="Configuration (subset) of a Hub data set.")
    add("--dataset_revision", help="Branch, tag or commit of the data set on the Hub.")
    add("--image_column", help="Column of the pictures; guessed when left out.")
    add("--label_column", help="Column of the labels; guessed when left out.")
    add("--metrics", nargs="+", default=[], help="Further metrics, as `evaluate.load` names them.")
    add("--batch_size", type=int, default=64, help="Pictures at a time. Default: 64.")
    add("--output", metavar="FILE.json", help="Write the result, with the confusion matrix, to this file too.")
    add("--json", action="store_true", help="Print the result as JSON and nothing else.")
    add("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def predict_parser() -> CommandParser:
    """Returns the parser of `hf-transfer predict`."""
    parser = CommandParser(
        prog="hf-transfer predict",
        description="Label pictures. One that cannot be read gets a row with its error; the exit code is then 1.",
        allow_abbrev=False,
    )
    _add_model(parser)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATHS", help="Pictures, folders of them (with all below), or patterns.")
    add("--output", metavar="FILE", help=f"Table to write: {', '.join(OUTPUT_SUFFIXES)}.")
    add("--top_k", type=int, default=1, help="How many labels each picture gets. Default: 1.")
    add("--batch_size", type=int, default=64, help="Pictures at a time. Default: 64.")
    add("--json", action="store_true", help="Print the rows as JSON and nothing else.")
    add("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="Folder of a run, folder of a model, or Hub id.")
