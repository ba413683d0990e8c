"""A tiny model and its pictures as a run looks at them before it begins."""

from hf_transfer.data.image_data import ImageData
from hf_transfer.models.checkpoint import Checkpoint
from hf_transfer.models.head import find_head
from hf_transfer.training.sampled_pictures import SampledPictures
from tests.models.families import tiny_image_processor
from tests.training.tiny_run import NUM_LABELS, tiny_model, tiny_split


def tiny_sample(model_type: str = "vit") -> SampledPictures:
    """Returns twelve pictures of three labels, and a model with random weights."""
    model, split = tiny_model(model_type).eval(), tiny_split(12)
    head, names = find_head(model), tuple(str(index) for index in range(NUM_LABELS))
    checkpoint = Checkpoint(model, tiny_image_processor(model_type), "m", None, "A", head, head, None, ())
    return SampledPictures(ImageData("d", "table", split, split, split, names, {}, "fingerprint"), checkpoint)
