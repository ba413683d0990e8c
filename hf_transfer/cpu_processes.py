"""`accelerate launch --cpu --num_processes N` with N processes.

accelerate 1.15 starts several CPU processes through MPI only: without `--mpirun_hostfile` its simple launcher runs the
script once, whatever N, and says nothing (`accelerate/utils/launch.py`, `prepare_simple_launcher_cmd_env`). The run
would be one of another batch size than asked for. Here the script notices that it is alone and starts itself N times
through torch's launcher. Removable when `tests/test_cpu_processes.py` passes without it. Knows nothing of training.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

TRUE_WORDS = ("1", "true", "yes", "on", "y", "t")


def start_missing_processes(script: str, argv: Sequence[str]) -> int | None:
    """Starts the processes that accelerate was asked for and did not start.

    Args:
        script (`str`):
            The script that accelerate runs.
        argv (`Sequence[str]`):
            Its arguments.

    Returns:
        `int`: the exit code of the processes, or `None` where there is nothing to start.
    """
    launched_alone = "MASTER_ADDR" in os.environ and "RANK" not in os.environ
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in TRUE_WORDS
    if not launched_alone or not on_cpu:
        return None
    wanted = processes_asked_for(_parent_words())
    if wanted < 2:
        return None
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // wanted)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(wanted)]
    command += ["--master_addr", os.environ["MASTER_ADDR"], "--master_port", os.environ.get("MASTER_PORT", "29500")]
    return subprocess.run([*command, script, *argv], env=environment, check=False).returncode


def processes_asked_for(words: Sequence[str]) -> int:
    """Reads the number of processes for one machine out of an `accelerate launch` command line.

    Args:
        words (`Sequence[str]`):
            The command line of the launcher.

    Returns:
        `int`: 1 where it is no such command, where it asks for MPI or for several machines.
    """
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    starts = [
        index for index, word in enumerate(words) if word == "launch" or word.endswith("accelerate.commands.launch")
    ]
    if not starts:
        starts = [index for index, word in enumerate(words) if word.endswith("commands/launch.py")]
    if not starts:
        return 1
    options, _ = launch_command_parser().parse_known_args(list(words[starts[0] + 1 :]))
    config = load_config_from_file(options.config_file) if options.config_file else None
    machines = options.num_machines or getattr(config, "num_machines", None) or 1
    if options.mpirun_hostfile is not None or machines > 1:
        return 1
    return options.num_processes or getattr(config, "num_processes", None) or 1


def _parent_words() -> list[str]:
    import psutil

    parent = psutil.Process().parent()
    return parent.cmdline() if parent is not None else []
