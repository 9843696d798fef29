"""Reading training samples: a query over a root's tables, in an exact and resumable order (docs/loader.md)."""

from trainer.data.cache import Cache
from trainer.data.loader import Loader
from trainer.data.order import Shuffle
from trainer.data.transforms import EvalTransform, TrainTransform, Transform, preprocess

__all__ = ["Cache", "EvalTransform", "Loader", "Shuffle", "TrainTransform", "Transform", "preprocess"]
