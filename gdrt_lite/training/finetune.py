"""Fine-tuning with a group objective: a `transformers.Trainer` whose loss is the method, and all else the library's.

LoRA for a pre-trained model, all weights for the pocket model. Derived in notebook 06, sections 2 and 3.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel
from peft.helpers import disable_input_dtype_casting
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from gdrt_lite.data import Example
from gdrt_lite.groups import TokenGroups
from gdrt_lite.lm import LanguageModel, shares_prefix
from gdrt_lite.lm.adapters import lora_summary, save_adapter, trainable_copy
from gdrt_lite.objectives import Objective, check_objective, groups_for
from gdrt_lite.relevance import token_relevance
from gdrt_lite.system.files import full_disk_said, replace_folder
from gdrt_lite.system.processes import sharing, warn_of_one_process
from gdrt_lite.training.arguments import NOT_KEPT, arguments
from gdrt_lite.training.batches import Collator, TokenisedExamples
from gdrt_lite.training.checkpoints import RunRecord, data_facts, own_checkpoint
from gdrt_lite.training.trainer import GroupTrainer, ProgressBar
from gdrt_lite.trie import trie_of


@dataclass
class TuningResult:
    """What `finetune` returns.

    Attributes:
        lm: the tuned model, with the prompt it was tuned on.
        objective: name of the objective.
        history: one row per step: step, loss, learning_rate, loss_g0.., weight_g0...
        groups: the token groups, or None for "sft" without groups.
        seconds: wall time of the training.
        settings: every argument that shaped the run.
    """

    lm: LanguageModel
    objective: str
    history: pd.DataFrame
    groups: TokenGroups | None
    seconds: float
    settings: dict[str, Any]

    def save(self, folder: str | Path) -> Path:
        """Save the LoRA adapter (or all weights of the pocket model) as safetensors, with settings and history beside."""
        folder, state = Path(folder), PartialState()
        if state.is_main_process:  # every process comes here; one writes, the others wait until it has
            self._write(folder)
        state.wait_for_everyone()
        return folder

    def _write(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        temporary.chmod(0o755)
        if isinstance(self.lm.model, PeftModel):
            save_adapter(self.lm.model, self.lm.name, temporary)
        else:
            self.lm.model.save_pretrained(temporary)
        self.history.to_csv(temporary / "history.csv", index=False)
        (temporary / "settings.json").write_text(json.dumps(self.settings, indent=1, default=str) + "\n")
        replace_folder(temporary, folder)


def make_groups(
    objective: str,
    lm: LanguageModel,
    examples: Sequence[Example],
    n_groups: int = 5,
    seed: int = 0,
    catalogue: Sequence[str] | None = None,
) -> TokenGroups:
    """Token groups for an objective, with relevance scored by `lm`, each process a part (see `objectives.groups_for`)."""
    targets = [example.target for example in examples]
    if check_objective(objective).level == "open":
        return groups_for(objective, {}, targets, legal=legal_tokens(lm, targets, catalogue))
    with sharing():
        relevance = token_relevance(lm, targets)
    return groups_for(objective, relevance, targets, n_groups, seed)


def legal_tokens(
    lm: LanguageModel, targets: Iterable[str], catalogue: Sequence[str] | None = None
) -> dict[str, list[np.ndarray]]:
    """For each target the tokens that the catalogue (default: the targets) allows in the place of each of its tokens."""
    distinct = sorted(set(targets))
    trie = trie_of(tuple(catalogue or distinct), lm.tokenizer)
    return {title: trie.legal(title) for title in distinct}


def finetune(
    lm: LanguageModel,
    examples: Sequence[Example],
    objective: Objective | str = "gdrt",
    args: TrainingArguments | None = None,
    *,
    groups: TokenGroups | None = None,
    lora: LoraConfig | None = None,
    start: LanguageModel | None = None,
    catalogue: Sequence[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
) -> TuningResult:
    """Tune a copy of `lm` on (history, target) examples; `lm` itself stays as it is.

    With LoRA both share the frozen weights in memory. Merge adapters only in a model of their own: `lm.load(adapter=...)`.
    Launched with several processes (`torchrun`, `accelerate launch`), each calls it alike and gets the same result: the
    weights of the groups and gradients are those of one process with all examples of the step (see `GroupTrainer`).

    Args:
        lm: the model to start from.
        examples: the training set.
        objective: what to minimise; a name stands for `Objective(name)` with its defaults.
        args: transformers' training arguments; default `training.arguments(lm)`.
        groups: token groups from another scorer; by default `make_groups` with `lm` as the scorer.
        lora: default r=8, alpha=16 on the attention's query and value projections, see `lm.adapters.default_targets`.
        start: a model tuned from `lm` with the same `lora`, whose adapter the training starts from.
        catalogue: the titles that "forced" and "msl" choose among; default the distinct targets.
        resume: continue from the newest whole checkpoint in `args.output_dir`, if there is one, to the same result.
        progress: show a progress bar.
        callbacks: transformers callbacks, for example to measure along the way.

    Raises:
        ValueError: bad arguments, or no example.
        GdrtError: `args.output_dir` holds checkpoints of another run (data, objective, length ...), or its disk is full.
        TrainingDiverged: the loss became NaN or infinite; the last checkpoint in `args.output_dir` is still good.
    """
    if not examples:
        raise ValueError("examples is empty: there is nothing to train on.")
    objective = Objective(objective) if isinstance(objective, str) else objective
    args = arguments(lm) if args is None else args
    warn_of_one_process()
    if groups is None and objective.spec.weights is not None:
        groups = make_groups(objective.name, lm, examples, objective.n_groups, args.seed, catalogue)
    sizes = groups.sizes if groups else None
    objective = dataclasses.replace(objective, n_groups=groups.n_groups if groups else 1, sizes=sizes, estimate=None)
    legal = legal_tokens(lm, (e.target for e in examples), catalogue) if objective.spec.legal else None
    if lm.name == "pocket":
        model = copy.deepcopy((start or lm).model)
    else:
        model = trainable_copy(lm.model, lora, args.seed, start.model if start else None)
    settings = _settings(lm, model, objective, args, len(examples))
    facts = settings | data_facts(lm.model, examples, groups)
    with tempfile.TemporaryDirectory() as scratch:
        args = copy.copy(args)
        if args.output_dir == NOT_KEPT:
            args.output_dir = scratch
        # With several GPUs in sight of one process the Trainer would split a batch whose rows share a prompt.
        args._n_gpu = min(args.n_gpu, 1)
        trainer = GroupTrainer(
            objective,
            model=model,
            args=args,
            train_dataset=TokenisedExamples(lm, examples, groups, legal),
            data_collator=Collator(lm.tokenizer.pad_token_id or 0, shares_prefix(model) and args.world_size == 1),
            callbacks=[
                RunRecord(facts),
                *[ProgressBar(objective.name)] * (progress and args.process_index == 0),
                *callbacks,
            ],
        )
        trainer.remove_callback(PrinterCallback)
        checkpoint = own_checkpoint(args.output_dir, facts)
        began = time.perf_counter()
        # Under autocast peft's own copies of every activation to the adapters' float32 are not needed.
        with warnings.catch_warnings(), disable_input_dtype_casting(model), full_disk_said(args.output_dir):
            warnings.filterwarnings("ignore", message=".*(pin_memory|lr_scheduler|is_gradient_checkpointing).*")
            trainer.train(resume_from_checkpoint=checkpoint if resume else None)
        seconds = time.perf_counter() - began
    history = pd.DataFrame([row for row in trainer.state.log_history if "loss" in row])
    tuned = dataclasses.replace(lm, model=trainer.accelerator.unwrap_model(model).eval())
    return TuningResult(tuned, objective.name, history, groups, seconds, settings)


def _settings(
    lm: LanguageModel, model: torch.nn.Module, objective: Objective, args: TrainingArguments, n_examples: int
) -> dict[str, Any]:
    """What is saved beside an adapter: every setting that shaped the training."""
    return dict(
        model=lm.name, objective=objective.name, tau=objective.tau, n_groups=objective.n_groups, ema=objective.ema,
        prior=None if objective.prior is None else objective.prior.tolist(), parameters=dict(objective.parameters),
        epochs=args.num_train_epochs, max_steps=args.max_steps,
        batch_size=args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
        processes=args.world_size, gradient_accumulation_steps=args.gradient_accumulation_steps,
        learning_rate=args.learning_rate, seed=args.seed, n_examples=n_examples,
        dtype=str(lm.model.dtype).removeprefix("torch."), lora=lora_summary(model),
    )  # fmt: skip


def train_relevance_scorer(
    lm: LanguageModel,
    examples: Sequence[Example],
    max_steps: int = 150,
    seed: int = 0,
    lora: LoraConfig | None = None,
    batch_size: int = 64,
) -> TuningResult:
    """The model tuned to predict targets from the task text alone, which is cheap: equal targets are read once.

    It is the relevance scorer of a model trained from scratch. A pre-trained model can score relevance as it is (Eq. 3).
    An untrained model does not know the titles yet, and a model tuned with histories has never seen a prompt without one.
    It is also the warm start of a study. Used in notebook 06, section 2.
    """
    blind = [dataclasses.replace(example, history=()) for example in examples]
    args = arguments(lm, max_steps=max_steps, batch_size=batch_size, seed=seed)
    return finetune(lm, blind, "sft", args, lora=lora, progress=False)
