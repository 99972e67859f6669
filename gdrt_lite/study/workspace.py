"""What the cells of one data set and model share: the data, the untuned model, its token relevance.

Derived in notebook 06, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from peft import LoraConfig

from gdrt_lite import data, groups, lm, prompts, relevance, training
from gdrt_lite.data import Example, Splits
from gdrt_lite.objectives import check_objective, groups_for
from gdrt_lite.study.config import Config
from gdrt_lite.system import files


class Workspace:
    """What the cells of one data set and model share: splits, the untuned model, its token relevance.

    Args:
        config: the settings that the cells share.
        splits: the data, where it is not one that `config.data` names.
    """

    def __init__(self, config: Config, splits: Splits | None = None) -> None:
        self.config = config
        if splits is None:
            splits = data.open_data(
                config.data, config.split, config.top_items, config.history, config.columns, growing=config.growing
            )
        self.splits = splits

    @cached_property
    def fingerprint(self) -> str:
        """Tells data by its content, whatever its name: all examples, the catalogue, the genres and the wording."""
        parts = (self.splits.train, self.splits.valid, self.splits.test)
        examples = [[(e.user, e.history, e.target, int(e.time)) for e in part] for part in parts]
        wording = self.splits.noun, self.splits.verb
        return files.fingerprint([examples, self.splits.catalogue, self.splits.genres, wording])

    def check(self, config: Config) -> None:
        """See that the data can serve a cell, before anything is trained for it.

        Raises:
            ValueError: a part holds no example, or the catalogue fewer titles than a list.
        """
        for part in {"train", config.part, *(["valid"] if config.curve_examples else [])}:
            if not getattr(self.splits, part):
                raise ValueError(f"the {part} part of {self.splits.name} holds no example; choose another split, or part.")
        if config.list_length > len(self.splits.catalogue):
            titles = f"the {len(self.splits.catalogue)} titles of {self.splits.name}"
            raise ValueError(f"list_length={config.list_length} is more than {titles}.")

    @cached_property
    def prompt(self) -> prompts.Prompt:
        """The wording that the data asks for: films are watched, books are read."""
        return prompts.for_items(self.splits.noun, self.splits.verb)

    @cached_property
    def base(self) -> lm.LanguageModel:
        """The model before tuning."""
        if self.config.model == "pocket":
            return lm.pocket(self.splits.catalogue, self.prompt, self.config.seed)
        return lm.load(self.config.model, self.prompt)

    @cached_property
    def start(self) -> lm.LanguageModel | None:
        """The warm start of all methods and seeds: the catalogue learned without histories; None without `warm_start`."""
        config = self.config
        if not config.warm_start:
            return None
        train = data.sample(self.splits.train, 10_000, 0)
        lora = lora_config(config)
        return training.train_relevance_scorer(self.base, train, config.warm_start, lora=lora, batch_size=256).lm

    @cached_property
    def relevance(self) -> dict[str, torch.Tensor]:
        """Token relevance of every catalogue title under the scorer."""
        scorer, config = self.base, self.config
        if config.scorer == "sft":
            args = training.arguments(
                self.base, epochs=config.epochs, batch_size=config.batch_size, learning_rate=config.learning_rate,
                seed=config.seed,
            )  # fmt: skip
            scorer = training.finetune(self.base, self.train(config), "sft", args, progress=False).lm
        elif config.model == "pocket":
            scorer = training.train_relevance_scorer(self.base, self.train(config), seed=config.seed).lm
        return relevance.token_relevance(scorer, self.splits.catalogue)

    def train(self, config: Config) -> list[Example]:
        """The training examples, drawn with the seed of the cell."""
        return data.sample(self.splits.train, config.train_examples, config.seed, whole_chunks=config.growing)

    def test(self, config: Config) -> list[Example]:
        """The examples to measure on: the same for every cell."""
        part = self.splits.test if config.part == "test" else self.splits.valid
        return data.sample(part, config.test_examples, seed=0)

    def groups(self, config: Config, train: Sequence[Example]) -> groups.TokenGroups:
        """Token groups as the objective wants them."""
        targets = [example.target for example in train]
        if check_objective(config.method).level == "open":
            return training.make_groups(config.method, self.base, train, catalogue=self.splits.catalogue)
        return groups_for(config.method, self.relevance, targets, config.n_groups, config.seed)


def lora_config(config: Config) -> LoraConfig:
    """The adapter that the settings ask for; without `target_modules`, `finetune` takes those of the attention."""
    targets = "all-linear" if config.lora_targets == "all-linear" else None
    return LoraConfig(
        r=config.lora_rank, lora_alpha=2 * config.lora_rank, lora_dropout=config.dropout, target_modules=targets,
        task_type="CAUSAL_LM",
    )  # fmt: skip
