"""The commands, and how an error of the user is shown.

Knows the names of commands and exit codes. What a command does is imported when it is called, so that `--help` needs
neither torch nor transformers.
"""

import atexit
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hf_transfer import __version__
from hf_transfer.allocator import keep_freed_memory
from hf_transfer.errors import UserError, nearest, user_message
from hf_transfer.name_clash import check_name_clash

USAGE = """usage: hf-transfer COMMAND [OPTIONS]

commands:
  train     fine-tune a checkpoint on your pictures (the same as finetune.py)
  evaluate  measure a saved model on a data set
  predict   name the classes of pictures
  inspect   list the layer groups of a checkpoint, with their learning rates
  export    write a saved model as ONNX or torch.export, checked against the original
  license   check the licences of a checkpoint, its bases and a data set for a use
  push      publish a finished run on the Hub, or finish a push that was interrupted
  card      render the model card of a run again
  verify    compare a run's folder with what the run recorded

`hf-transfer COMMAND --help` lists the options of a command; `hf-transfer --version` says which version this is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `hf-transfer`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if words[0] == "--version":
        print(f"hf-transfer-learning {__version__}")
        return 0
    return run_command(words[0], words[1:])


def run_command(name: str, argv: Sequence[str]) -> int:
    """Runs one command and turns a mistake of the user into one message and exit code 2.

    Args:
        name (`str`):
            The command.
        argv (`Sequence[str]`):
            Its options.

    Returns:
        `int`: the exit code.
    """
    try:
        check_name_clash()
        keep_freed_memory()
        return _find_command(name)(argv)
    except UserError as error:
        if "--debug" in argv:
            traceback.print_exc()
        elif os.environ.get("RANK", "0") == "0":
            print(f"error: {user_message(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _find_command(name: str) -> Callable[[Sequence[str]], int]:
    if name not in COMMANDS:
        close = nearest(name, list(COMMANDS))
        raise UserError(
            f"{name!r} is no command.", ", ".join(COMMANDS), f"hf-transfer {close}" if close else "hf-transfer --help"
        )
    return COMMANDS[name]


def _train(argv: Sequence[str]) -> int:
    from hf_transfer.parsing import help_text, parse_command_line

    if "-h" in argv or "--help" in argv or "--help_all" in argv:
        print(help_text(everything="--help_all" in argv))
        return 0
    with _uncollected():
        config = parse_command_line(argv)
        from hf_transfer.pipeline import finetune
        from hf_transfer.training.process_group import end_processes

    finetune(config)
    end_processes()
    return 0


@contextmanager
def _uncollected() -> Iterator[None]:
    """Spares imports the garbage collector, which would look through all that they make, again and again.

    Modules stay until the end: later collections leave them out too (`benchmarks/results/startup.md`). At the end they
    are handed back, or triton's bindings take them for leaks and say so.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)


def _evaluate(argv: Sequence[str]) -> int:
    from hf_transfer.evaluation.commands import evaluate_command

    return evaluate_command(argv)


def _predict(argv: Sequence[str]) -> int:
    from hf_transfer.evaluation.commands import predict_command

    return predict_command(argv)


def _inspect(argv: Sequence[str]) -> int:
    from hf_transfer.inspection import inspect_command

    return inspect_command(argv)


def _export(argv: Sequence[str]) -> int:
    from hf_transfer.publishing.export_command import export_command

    return export_command(argv)


def _license(argv: Sequence[str]) -> int:
    from hf_transfer.publishing.license_command import license_command

    return license_command(argv)


def _push(argv: Sequence[str]) -> int:
    from hf_transfer.publishing.push_command import push_command

    return push_command(argv)


def _card(argv: Sequence[str]) -> int:
    from hf_transfer.publishing.card_command import card_command

    return card_command(argv)


def _verify(argv: Sequence[str]) -> int:
    from hf_transfer.publishing.verify_command import verify_command

    return verify_command(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "inspect": _inspect,
    "export": _export,
    "license": _license,
    "push": _push,
    "card": _card,
    "verify": _verify,
}
