"""Fine-tune an image classifier of the Hugging Face Hub on your pictures.

    accelerate launch finetune.py recipes/quickstart.yaml
    accelerate launch finetune.py --model facebook/convnext-tiny-224 --dataset path/to/pictures
    accelerate launch --config_file recipes/accelerate/multi_gpu.yaml finetune.py RECIPE.yaml --learning_rate 5e-5

A recipe sets defaults, the command line wins. `--help` lists our own options, `--help_all` those of TrainingArguments
too. The same run is `hf-transfer train ...`.
"""

import sys

from hf_transfer.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:]))
