"""Prompts as token ids with a segment label on every token.

A prompt is built from separately tokenised pieces, so a title has the same tokens wherever it stands:

    before · (bullet · title) · (bullet · title) · ... · after · target title · EOS
    TASK     TASK    HISTORY    TASK    HISTORY          TASK    TARGET

While y_t is predicted, the target tokens y_<t before it are called the PREFIX. TASK and PREFIX are the paper's
auxiliary tokens, HISTORY its user interaction tokens (arXiv 2510.10978, section 2).
Derived in notebook 01, section 1.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASK, HISTORY, TARGET = 0, 1, 2
PREFIX = 3  # never a label: the TARGET tokens before the one being predicted
SEGMENT_NAMES = ("TASK", "HISTORY", "TARGET", "PREFIX")


@dataclass(frozen=True)
class Encoded:
    """One tokenised prompt, and the places where the model is asked for a log-probability.

    Attributes:
        ids: token ids, length n.
        segments: TASK, HISTORY or TARGET per token, length n.
        predict_at: positions whose next-token distribution is read, length T, ascending.
        labels: the token scored at each of these positions, length T.
        attend: 1 where a token may be attended to, 0 where it is masked, length n.
    """

    ids: tuple[int, ...]
    segments: tuple[int, ...]
    predict_at: tuple[int, ...]
    labels: tuple[int, ...]
    attend: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, segment: int) -> list[int]:
        """Positions of the tokens of `segment`."""
        return [i for i, s in enumerate(self.segments) if s == segment]


@dataclass(frozen=True)
class Prompt:
    """The fixed words around a history: the paper's task description.

    Args:
        before: opens every prompt.
        bullet: stands before every history title.
        after: closes the prompt; the target title follows it.
    """

    before: str
    bullet: str = "\n-"
    after: str = "\nNext:\n-"

    def variant(self, history: Sequence[str], target: str | None) -> Prompt:
        """The wording used for this example: always the same one (see `RotatingPrompt`)."""
        return self

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        history: Sequence[str],
        target: str | None,
        max_length: int | None = None,
    ) -> Encoded:
        """Tokenise one example.

        Args:
            history: titles, oldest first; may be empty.
            target: the title to predict, or None for a prompt that ends where the target would begin.
            max_length: the model's window in tokens. A longer prompt loses titles from its oldest end.

        Raises:
            ValueError: the prompt does not fit into `max_length` even without any history.
        """
        words = self.variant(history, target)
        ids = list(_tokenise(tokenizer, words.before))
        segments = [TASK] * len(ids)
        bullet, after = _tokenise(tokenizer, words.bullet), _tokenise(tokenizer, words.after)
        answer = () if target is None else target_ids(tokenizer, target)
        titles = [title_ids(tokenizer, title) for title in history]
        if max_length is not None:
            room = max_length - len(ids) - len(after) - len(answer)
            if room < 0:
                raise ValueError(
                    f"max_length={max_length} is too short: the task text and the target alone need "
                    f"{max_length - room} tokens. Use a shorter prompt or a model with a longer window."
                )
            titles = _newest_that_fit(titles, room, len(bullet))
        for title in titles:
            ids += bullet + title
            segments += [TASK] * len(bullet) + [HISTORY] * len(title)
        ids += after
        segments += [TASK] * len(after)
        first = len(ids)
        ids += answer
        segments += [TARGET] * len(answer)
        predict_at = tuple(range(first - 1, first - 1 + len(answer)))
        return Encoded(tuple(ids), tuple(segments), predict_at, answer, (1,) * len(ids))


@dataclass(frozen=True)
class RotatingPrompt:
    """Several wordings of one task; each example always gets the same one, chosen by a checksum of its titles."""

    variants: tuple[Prompt, ...]

    def variant(self, history: Sequence[str], target: str | None) -> Prompt:
        """The wording used for this example. It does not depend on the target, which must not leak."""
        return self.variants[zlib.crc32("\n".join(history).encode()) % len(self.variants)]

    encode = Prompt.encode


def for_items(noun: str = "movie", verb: str = "watched") -> Prompt:
    """The default wording for a kind of item, for example `for_items("book", "read")`."""
    return Prompt(
        before=f"A user has {verb} these {noun}s, oldest first. Recommend the next {noun} for this user.",
        after=f"\nNext {noun}:\n-",
    )


DEFAULT = for_items()
NO_TASK = Prompt(before="", after="\n-")
PARAPHRASES = RotatingPrompt(
    (
        DEFAULT,
        Prompt("Here is what somebody watched lately:", "\n*", "\nWhat will they watch after that?\n*"),
        Prompt("Viewing log of one person.", "\n>", "\nThen came:\n>"),
        Prompt("You recommend films. Given the list below, name one more film.", "\n-", "\nYour answer:\n-"),
        Prompt("Films seen, in order:", "\n+", "\nUp next:\n+"),
        Prompt("Guess which title continues this sequence of titles.", "\n~", "\nContinuation:\n~"),
        Prompt("My friend enjoyed the following.", "\n=", "\nPlease suggest something similar:\n="),
        Prompt("User history", "\n#", "\nRecommendation\n#"),
    )
)


def title_ids(tokenizer: PreTrainedTokenizerBase, title: str) -> tuple[int, ...]:
    """Token ids of a title, written with the leading space that follows a bullet.

    Raises:
        ValueError: the title is blank.
    """
    if not title.strip():
        raise ValueError("a title is blank; give every item a name, since the model reads nothing else of it.")
    return _tokenise(tokenizer, " " + title)


def target_ids(tokenizer: PreTrainedTokenizerBase, title: str) -> tuple[int, ...]:
    """Token ids of a title as a target: the title, then EOS, without which 'Alien' could not end before 'Aliens'."""
    return title_ids(tokenizer, title) + (tokenizer.eos_token_id,)


@lru_cache(maxsize=200_000)
def _tokenise(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _newest_that_fit(titles: list[tuple[int, ...]], room: int, bullet: int) -> list[tuple[int, ...]]:
    kept: list[tuple[int, ...]] = []
    for title in reversed(titles):
        room -= bullet + len(title)
        if room < 0:
            break
        kept.append(title)
    return kept[::-1]
