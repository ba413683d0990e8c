"""From command line and recipe to `FinetuneConfig`.

Knows flags, YAML and which of the two wins. Every option of ours and every field of `TrainingArguments` is a flag,
made by `HfArgumentParser` from the dataclass; a recipe is turned into the same flags, so that there is one set of
rules for types. Only what was given ends up in the configuration. Does not know what any option does.
"""

import argparse
import dataclasses
import json
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers.hf_argparser import HfArgumentParser, string_to_bool

from hf_transfer.config import FinetuneConfig
from hf_transfer.errors import UserError, nearest

USAGE = "finetune.py [RECIPE.yaml] [--model ID_OR_DIR] [--dataset ID_OR_DIR] [--strategy S] [options]"
_BOOLEAN_WORDS = {"on": "true", "off": "false"}
_SECRET_FLAGS = ("--hub_token", "--hub-token")


class _Parser(HfArgumentParser):
    """An argument parser whose mistakes are `UserError`s."""

    def error(self, message: str) -> typing.NoReturn:
        raise UserError(message[:1].upper() + message[1:] + ".", hint="finetune.py --help, or --help_all")


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-5` is a number: YAML 1.1 asks for a dot, and reads a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_command_line(argv: Sequence[str]) -> FinetuneConfig:
    """Parses a command line, with the recipe it names as defaults.

    Args:
        argv (`Sequence[str]`):
            The words after the program's name: at most one recipe, alone or after `--config`, and flags.

    Returns:
        `FinetuneConfig`: with the fields of `TrainingArguments` that were given in `training`.

    Raises:
        UserError: for an unknown flag or key, a value of the wrong type, or a recipe that cannot be read.
    """
    parser = _build_parser(everything=True)
    given = _parse(parser, list(argv), "the command line")
    recipes = [path for path in (given.pop("recipe", None), given.pop("config", None)) if path]
    if len(recipes) > 1:
        raise UserError(f"Two recipes were given: {recipes[0]} and {recipes[1]}.", "one recipe")
    values = {**_read_recipe(recipes[0], parser), **given} if recipes else given
    return _to_config(values, recipes[0] if recipes else None, argv)


def help_text(everything: bool) -> str:
    """Returns the help page: our options, or with `everything` those of `TrainingArguments` too."""
    return _build_parser(everything).format_help()


def _to_config(values: dict[str, Any], recipe: str | None, argv: Sequence[str]) -> FinetuneConfig:
    # `--debug` alone is ours, and shows tracebacks; with a value it is that of TrainingArguments.
    debug = values.pop("debug", False)
    training = {name: value for name, value in values.items() if name not in _own_fields()}
    if isinstance(debug, str):
        training["debug"] = debug
    own = {name: value for name, value in values.items() if name in _own_fields()}
    for name, example in (("model", "--model facebook/convnext-tiny-224"), ("dataset", "--dataset path/to/pictures")):
        if not own.get(name):
            raise UserError(f"--{name} is missing.", hint=f"{example}, or a recipe such as recipes/quickstart.yaml")
    return FinetuneConfig(**own, debug=bool(debug), training=training, recipe=recipe, command=_masked(argv))


def _own_fields() -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(FinetuneConfig) if field.metadata.get("parsed", True)}


def _build_parser(everything: bool) -> _Parser:
    """Builds the parser; `TrainingArguments`, and with it torch, is imported only for everything."""
    parser = _Parser([_flags_of(FinetuneConfig, _own_fields())], prog="finetune.py", usage=USAGE, allow_abbrev=False)
    parser.add_argument("recipe", nargs="?", help="YAML file that sets defaults; the command line wins")
    parser.add_argument("--config", help="the same, as a flag")
    parser.add_argument(
        "--debug", nargs="?", const=True, help="show the traceback of an error; with a value, Trainer's option"
    )
    parser.add_argument("--help_all", action="store_true", help="list every option of TrainingArguments too")
    if everything:
        from transformers import TrainingArguments

        fields = {field.name: field for field in dataclasses.fields(TrainingArguments) if field.name != "debug"}
        parser._add_dataclass_arguments(_flags_of(TrainingArguments, fields))
        _let_compiling_be_tried(parser)
    parser.epilog = (
        "Every option of transformers.TrainingArguments works too: see --help_all. Our defaults that differ from "
        "Trainer's, with reasons, are in hf_transfer/training/arguments.py."
    )
    if everything:
        for action in parser._actions:
            action.default = argparse.SUPPRESS
    return parser


def _let_compiling_be_tried(parser: _Parser) -> None:
    """Adds `auto` to what Trainer's `--torch_compile` takes."""
    (action,) = (action for action in parser._actions if action.dest == "torch_compile")
    action.type = _switch_or_auto
    action.help = (
        "Compile the network with `torch.compile`; `auto` tries it before the first step, where the planned steps may "
        "pay for it, and says what it decides (default: false)"
    )


def _switch_or_auto(text: str) -> bool | str:
    if text.lower() == "auto":
        return "auto"
    try:
        return string_to_bool(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, true and false") from error


def _flags_of(owner: type, fields: dict[str, dataclasses.Field]) -> Any:
    """Makes a dataclass of some fields of another, none of them required, for `HfArgumentParser`."""
    hints = typing.get_type_hints(owner)
    view = []
    for name, field in fields.items():
        if name == "debug" or not field.init:
            continue
        kind, default = hints[name], field.default
        if default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            kind, default = kind | None, None
        factory = field.default_factory
        spec = (
            dataclasses.field(default_factory=factory, metadata=field.metadata)
            if factory is not dataclasses.MISSING
            else dataclasses.field(default=default, metadata=field.metadata)
        )
        view.append((name, kind, spec))
    return dataclasses.make_dataclass(f"{owner.__name__}Flags", view)


def _parse(parser: _Parser, words: list[str], source: str) -> dict[str, Any]:
    namespace, unknown = parser.parse_known_args(words)
    for word in unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        close = nearest(word.split("=")[0], known)
        raise UserError(f"{source[:1].upper()}{source[1:]} has an unknown option: {word}.", hint=close or "--help_all")
    return vars(namespace)


def _read_recipe(path: str, parser: _Parser) -> dict[str, Any]:
    """Turns a recipe into flags and parses them, so that both follow the same rules."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=_Loader)
    except OSError as error:
        raise UserError(f"The recipe {path} cannot be read: {error.strerror}.", "a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"The recipe {path} is no valid YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"The recipe {path} holds no options.", "lines such as `model: facebook/convnext-tiny-224`")
    actions = {action.dest: action for action in parser._actions}
    known = [name for name in actions if name not in ("recipe", "config", "help", "help_all")]
    words: list[str] = []
    seen: set[str] = set()
    for key, value in root.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name not in known:
            close = nearest(name, known)
            raise UserError(
                f"{path}, line {line}: unknown option {name!r}.",
                hint=f"{close}" if close else "finetune.py --help_all",
            )
        if name in seen:
            raise UserError(f"{path}, line {line}: {name!r} is set twice.", "each option once")
        seen.add(name)
        words += _to_words(actions[name], value)
    try:
        return _parse(parser, words, path)
    except UserError as error:
        raise UserError(f"{path}: {error.given}", error.allowed, error.hint) from error


def _to_words(action: argparse.Action, node: yaml.Node) -> list[str]:
    """Returns the words that a user would type for a value of a recipe; none for `null`."""
    flag = f"--{action.dest}"
    if isinstance(node, yaml.MappingNode):
        return [f"{flag}={json.dumps(_plain(node))}"]
    if isinstance(node, yaml.SequenceNode):
        if action.nargs != "+":
            return [f"{flag}={json.dumps(_plain(node))}"]
        return [flag, *(str(item.value) for item in node.value)]
    if node.tag == "tag:yaml.org,2002:null":
        return []
    if action.nargs == "+":
        return [flag, str(node.value)]
    return [f"{flag}={_scalar(action, str(node.value))}"]


def _scalar(action: argparse.Action, text: str) -> str:
    """Returns the text as it was written, so that `no` stays `no`; a switch takes `on` and `off` too."""
    is_switch = action.type in (string_to_bool, _switch_or_auto)
    return _BOOLEAN_WORDS.get(text.lower(), text) if is_switch else text


def _plain(node: yaml.Node) -> Any:
    loader = _Loader("")
    return loader.construct_object(node, deep=True)


def _masked(argv: Sequence[str]) -> tuple[str, ...]:
    """Returns the command line without tokens."""
    return tuple(_without_tokens(argv))


def _without_tokens(argv: Sequence[str]) -> Iterator[str]:
    hide_next = False
    for word in argv:
        flag = word.split("=")[0]
        if hide_next:
            yield "***"
        elif flag in _SECRET_FLAGS and "=" in word:
            yield f"{flag}=***"
        else:
            yield word
        hide_next = word in _SECRET_FLAGS
