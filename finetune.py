"""Fine-tune an image classifier of the Hugging Face Hub on your pictures.

    accelerate launch finetune.py recipes/quickstart.yaml
    accelerate launch finetune.py --model facebook/convnext-tiny-224 --dataset path/to/pictures
    accelerate launch --config_file recipes/accelerate/multi_gpu.yaml finetune.py RECIPE.yaml --learning_rate 5e-5

A recipe sets defaults, the command line wins. `--help` lists our own options, `--help_all` those of TrainingArguments
too. The same run is `hf-transfer train ...`.
"""

import sys

from hf_transfer.cli import run_command
from hf_transfer.cpu_processes import start_missing_processes


def main() -> int:
    exit_code = start_missing_processes(__file__, sys.argv[1:])
    return run_command("train", sys.argv[1:]) if exit_code is None else exit_code


if __name__ == "__main__":
    sys.exit(main())
