"""Fine-tuning: `finetune` and what it returns."""

from gdrt_lite.training.arguments import arguments
from gdrt_lite.training.finetune import TuningResult, finetune, legal_tokens, make_groups, train_relevance_scorer
from gdrt_lite.training.trainer import GroupTrainer, TrainingDiverged

__all__ = [
    "GroupTrainer",
    "TrainingDiverged",
    "TuningResult",
    "arguments",
    "finetune",
    "legal_tokens",
    "make_groups",
    "train_relevance_scorer",
]
