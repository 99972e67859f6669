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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel
from peft.helpers import disable_input_dtype_casting
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from gdrt_lite.data import Example
from gdrt_lite.groups import TokenGroups, fit_for
from gdrt_lite.lm import LanguageModel, shares_prefix
from gdrt_lite.lm.adapters import lora_summary, save_adapter, trainable_copy
from gdrt_lite.objectives import Objective, check_objective
from gdrt_lite.relevance import token_relevance
from gdrt_lite.system.files import replace_folder
from gdrt_lite.training.batches import Collator, TokenisedExamples
from gdrt_lite.training.trainer import GroupTrainer, ProgressBar, newest_checkpoint


@dataclass
class TuningResult:
    """What `finetune` returns.

    Attributes:
        lm: the tuned model, with the prompt it was tuned on.
        objective: name of the objective.
        history: one row a step: step, loss, learning_rate, loss_g0.., weight_g0...
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
        folder = Path(folder)
        if not PartialState().is_main_process:  # launched by accelerate, every process comes here and one writes
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        temporary.chmod(0o755)
        if isinstance(self.lm.model, PeftModel):
            save_adapter(self.lm.model, self.lm.name, temporary)
        else:
            self.lm.model.save_pretrained(temporary)
        self.history.to_csv(temporary / "history.csv", index=False)
        (temporary / "settings.json").write_text(json.dumps(self.settings, indent=1, default=str) + "\n")
        return replace_folder(temporary, folder)


def make_groups(objective: str, lm: LanguageModel, examples: Sequence[Example], k: int = 5, seed: int = 0) -> TokenGroups:
    """Token groups for an objective: relevance under `lm`, K-means, at item level for "item", shuffled for "random"."""
    targets = [example.target for example in examples]
    return fit_for(objective, token_relevance(lm, targets), targets, k=k, seed=seed)


def finetune(
    lm: LanguageModel,
    examples: Sequence[Example],
    objective: str = "gdrt",
    *,
    tau: float = 1.0,
    k: int = 5,
    groups: TokenGroups | None = None,
    prior: Sequence[float] | None = None,
    ema: float | None = None,
    epochs: float = 1.0,
    max_steps: int = -1,
    batch_size: int = 16,
    learning_rate: float | None = None,
    lora: LoraConfig | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    save_every: int = 50,
    resume: bool = False,
    progress: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
) -> TuningResult:
    """Tune a copy of `lm` on (history, target) examples; `lm` itself stays as it is.

    With LoRA both share the frozen weights in memory, so merge adapters only in a model of their own: `lm.load(adapter=...)`.

    Args:
        lm: the model to start from.
        examples: the training set.
        objective: one of `OBJECTIVES`.
        tau: temperature of the group weights, in nats.
        k: number of groups when `groups` is None.
        groups: token groups from another scorer; by default `make_groups` with `lm` as the scorer.
        prior: P(g); None is uniform.
        ema: decay of the running group losses; None uses those of the batch.
        epochs, max_steps: length of the training; `max_steps` wins when positive.
        batch_size: examples in an optimiser step.
        learning_rate: peak of a linear schedule; default 1e-3 for LoRA, 2e-3 for the pocket model.
        lora: default r=8, alpha=16 on the attention's query and value projections, see `lm.adapters.default_targets`.
        seed: of the adapter's initial weights and of the order of the examples.
        output: folder for checkpoints; without it nothing is kept until the end.
        save_every: steps between checkpoints.
        resume: go on from the newest checkpoint in `output`, if there is one, to the same result.
        progress: show a progress bar.
        callbacks: transformers callbacks, for example to measure along the way.

    Raises:
        ValueError: bad arguments, or no example.
        TrainingDiverged: the loss became NaN or infinite; the last checkpoint in `output` is still good.
    """
    check_objective(objective)
    if not examples:
        raise ValueError("examples is empty: there is nothing to train on.")
    pretrained = lm.name != "pocket"
    learning_rate = learning_rate or (1e-3 if pretrained else 2e-3)
    if groups is None and objective != "sft":
        groups = make_groups(objective, lm, examples, k, seed)
    n_groups = groups.k if groups else 1
    loss = Objective(objective, n_groups, tau, None if prior is None else torch.tensor(prior), ema)
    model = trainable_copy(lm.model, lora, seed) if pretrained else copy.deepcopy(lm.model)
    settings = dict(
        model=lm.name, objective=objective, tau=tau, k=n_groups, prior=prior, ema=ema, epochs=epochs, max_steps=max_steps,
        batch_size=batch_size, learning_rate=learning_rate, seed=seed, n_examples=len(examples),
        dtype=str(lm.model.dtype).removeprefix("torch."), lora=lora_summary(model),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=str(output or scratch),
            num_train_epochs=epochs,
            max_steps=max_steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            lr_scheduler_type="linear",
            weight_decay=0.0,
            logging_strategy="steps",
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no" if output is None else "steps",
            save_steps=save_every,
            save_total_limit=1,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=lm.device.type == "cpu",
            bf16=model.dtype == torch.bfloat16,  # autocast: adapters stay float32, their products run in bfloat16
            seed=seed,
            report_to="none",
            disable_tqdm=True,  # `ProgressBar` shows progress without printing a line for each logged step
        )
        # With several GPUs in sight of one process the Trainer would split a batch whose rows share a prefix; accelerate takes them all.
        arguments._n_gpu = min(arguments.n_gpu, 1)
        trainer = GroupTrainer(
            model=model,
            args=arguments,
            train_dataset=TokenisedExamples(lm, examples, groups),
            data_collator=Collator(lm.tokenizer.pad_token_id or 0, shares_prefix(model) and arguments.world_size == 1),
            callbacks=[ProgressBar(objective)] * progress + list(callbacks),
        )
        trainer.objective = loss
        trainer.remove_callback(PrinterCallback)
        checkpoint = newest_checkpoint(output) if resume else None
        start = time.perf_counter()
        # Under autocast peft's own copies of every activation to the adapters' float32 are not needed.
        with warnings.catch_warnings(), disable_input_dtype_casting(model):
            warnings.filterwarnings("ignore", message=".*(pin_memory|lr_scheduler|is_gradient_checkpointing).*")
            trainer.train(resume_from_checkpoint=checkpoint)
        seconds = time.perf_counter() - start
    history = pd.DataFrame([row for row in trainer.state.log_history if "loss" in row])
    tuned = dataclasses.replace(lm, model=trainer.accelerator.unwrap_model(model).eval())
    return TuningResult(tuned, objective, history, groups, seconds, settings)


def train_relevance_scorer(
    lm: LanguageModel, examples: Sequence[Example], max_steps: int = 150, seed: int = 0
) -> TuningResult:
    """The model tuned to predict targets from the task text alone: the relevance scorer of a model trained from scratch.

    A pre-trained model can score token relevance as it is (Eq. 3); an untrained one knows no title yet, and a model tuned with
    histories has never seen a prompt without one. Used in notebook 06, section 2.
    """
    blind = [dataclasses.replace(example, history=()) for example in examples]
    return finetune(lm, blind, "sft", max_steps=max_steps, batch_size=64, seed=seed, progress=False)
