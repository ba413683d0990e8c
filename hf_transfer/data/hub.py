"""Image data sets of the Hugging Face Hub, read by `datasets`.

Knows which splits to take and how each way of failing is told to the user. Does not number labels.
"""

import datasets
from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError
from huggingface_hub import HfApi, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.folders import canonical_split
from hf_transfer.data.table import RawSplits
from hf_transfer.data.tables import raw_table
from hf_transfer.errors import UserError, nearest
from hf_transfer.hub_errors import hub_error


def read_hub_dataset(config: FinetuneConfig) -> tuple[RawSplits, str | None]:
    """Loads a data set of the Hub, or of the cache when offline.

    Args:
        config (`FinetuneConfig`):
            `dataset`, `dataset_config`, `dataset_revision` and columns.

    Returns:
        `tuple`: the splits under their own names, and the commit they came from.

    Raises:
        UserError: for every way in which the data set cannot be had.
    """
    commit = _resolve(config)
    loaded = _load(config, commit)
    tables = {
        name: raw_table(table, config.image_column, config.label_column, f"{config.dataset} ({name})", folder=None)
        for name, table in _wanted(loaded, config).items()
    }
    return tables, commit


def _wanted(loaded: datasets.DatasetDict, config: FinetuneConfig) -> dict[str, datasets.Dataset]:
    """Leaves out splits that are neither asked for nor known by name, such as `unlabelled`."""
    asked = {config.train_split, config.validation_split, config.test_split} - {None}
    wanted = {name: table for name, table in loaded.items() if name in asked or canonical_split(name)}
    return wanted or dict(loaded)


def _resolve(config: FinetuneConfig) -> str | None:
    """Returns the commit that a branch or tag stands for now, so that what is read is what is reported.

    Offline, `datasets` decides by what it has in its cache, and the commit is not known.
    """
    if is_offline_mode():
        return None
    try:
        return HfApi().dataset_info(config.dataset, revision=config.dataset_revision).sha
    except (HfHubHTTPError, OSError, HTTPError) as error:
        raise hub_error(error, config.dataset, config.dataset_revision, is_dataset=True) from error


def _load(config: FinetuneConfig, commit: str | None) -> datasets.DatasetDict:
    name, revision = config.dataset, commit or config.dataset_revision
    try:
        return datasets.load_dataset(name, config.dataset_config, revision=revision)
    except DataFilesNotFoundError as error:
        raise UserError(f"The data set {name!r} holds no files that `datasets` can read: {error}") from error
    except (DatasetNotFoundError, HfHubHTTPError, OfflineModeIsEnabled, ConnectionError) as error:
        raise hub_error(error, name, config.dataset_revision, is_dataset=True) from error
    except DatasetGenerationError as error:
        reason = _first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise UserError(f"The files of the data set {name!r} cannot be read: {reason}") from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise UserError(
            f"The data set {name!r} is a script, which `datasets` no longer runs.",
            hint="--dataset_revision refs/convert/parquet, where the Hub keeps a parquet copy of most of them",
        ) from error
    except ValueError as error:
        raise _wrong_value(error, config) from error


def _wrong_value(error: ValueError, config: FinetuneConfig) -> UserError:
    text = str(error)
    if "BuilderConfig" in text or "Config name is missing" in text:
        known = datasets.get_dataset_config_names(config.dataset, revision=config.dataset_revision)
        close = nearest(config.dataset_config, known) if config.dataset_config else None
        return UserError(
            f"The data set {config.dataset!r} has no configuration {config.dataset_config!r}."
            if config.dataset_config
            else f"The data set {config.dataset!r} has several configurations.",
            ", ".join(known),
            f"--dataset_config {close or known[0]}",
        )
    return UserError(f"The data set {config.dataset!r} cannot be read: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
