"""The training arguments of the course: transformers' own, with our defaults. Used in notebook 06, section 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from gdrt_lite.lm import LanguageModel

NOT_KEPT = "not-kept"  # `output_dir` of a training that saves nothing


def arguments(
    lm: LanguageModel,
    *,
    epochs: float = 1.0,
    max_steps: int = -1,
    batch_size: int = 16,
    learning_rate: float | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    save_every: int = 50,
    **others: Any,
) -> TrainingArguments:
    """transformers' `TrainingArguments` for a model, with the defaults of this package.

    Args:
        lm: the model to train; its device and dtype decide where and in what precision.
        epochs, max_steps: length of the training; `max_steps` wins when positive.
        batch_size: examples per optimiser step, in total: divided over the processes and the `gradient_accumulation_steps`,
            so that a script gives the same result on one device and on several.
        learning_rate: peak of a linear schedule; default 1e-3 for LoRA, 2e-3 for the pocket model.
        seed: random seed for the adapter's initial weights and for the order of the examples.
        output: folder for checkpoints; None keeps nothing until the end.
        save_every: steps between checkpoints.
        **others: any other field of `TrainingArguments`, for example `warmup_steps` or `gradient_accumulation_steps`.

    Raises:
        ValueError: `batch_size` is no multiple of the number of processes times the accumulation steps.
    """
    settings: dict[str, Any] = dict(
        output_dir=NOT_KEPT if output is None else str(output),
        num_train_epochs=epochs,
        max_steps=max_steps,
        learning_rate=learning_rate or (2e-3 if lm.name == "pocket" else 1e-3),
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
        # Autocast: adapters stay float32, their products run in 16 bits.
        bf16=lm.model.dtype == torch.bfloat16,
        fp16=lm.model.dtype == torch.float16 and lm.device.type != "cpu",
        seed=seed,
        report_to="none",
        disable_tqdm=True,  # `ProgressBar` shows progress without printing a line for each logged step
    )
    args = TrainingArguments(**(settings | others))
    parts = args.world_size * args.gradient_accumulation_steps
    if batch_size < 1 or batch_size % parts:
        raise ValueError(
            f"batch_size={batch_size} cannot be divided over {args.world_size} processes and "
            f"{args.gradient_accumulation_steps} accumulation steps; choose a multiple of {parts}."
        )
    args.per_device_train_batch_size = others.get("per_device_train_batch_size", batch_size // parts)
    return args
