"""Prompts as token ids with a segment label on every token.

A prompt is built from separately tokenised pieces, so a title has the same tokens wherever it stands:

    BOS · before · (bullet · title) · (bullet · title) · ... · after · target title · EOS
    BOS   TASK     TASK    HISTORY    TASK    HISTORY          TASK    TARGET

BOS is what the tokenizer itself puts in front of a text: one token for Gemma, Llama and Mistral, which predict badly without
it, and nothing for SmolLM2. It belongs to no segment that is ablated.

While y_t is predicted, the target tokens y_<t before it are called the PREFIX. TASK and PREFIX are the paper's
auxiliary tokens, HISTORY its user interaction tokens (arXiv 2510.10978, section 2).
Derived in notebook 01, section 1.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASK, HISTORY, TARGET = 0, 1, 2
PREFIX = 3  # never a label: the TARGET tokens before the one being predicted
BOS = 4
CUT = "\ud800"  # half a character, which no title holds: where a title is cut for the tokenizer
SEGMENT_NAMES = ("TASK", "HISTORY", "TARGET", "PREFIX", "BOS")


@dataclass(frozen=True)
class Encoded:
    """One tokenised prompt, and the places where the model is asked for a log-probability.

    Attributes:
        ids: token ids, length n.
        segments: BOS, TASK, HISTORY or TARGET per token, length n.
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
        """The wording used for this example: always this one (see `RotatingPrompt`)."""
        return self

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        history: Sequence[str],
        target: str | None,
        max_length: int | None = None,
        room: int = 0,
    ) -> Encoded:
        """Tokenise one example.

        Args:
            history: titles, oldest first; may be empty.
            target: the title to predict, or None for a prompt that ends where the target would begin.
            max_length: the model's context length in tokens, of which `room` stay free. A longer prompt loses its oldest
                titles, and a warning says so when it loses all of them.

        Raises:
            ValueError: a title that cannot be read, see `normal_title`; a prompt that is empty, or too long without history.
        """
        history = [normal_title(title) for title in history]
        words, reader = self.variant(history, target), _reader(tokenizer, len(tokenizer))
        bos, before = opening_ids(tokenizer), reader.opening(words.before)
        before = before[len(bos) :] if before[: len(bos)] == bos else before  # the wording may spell BOS itself
        bullet, after = reader.piece(words.bullet), reader.piece(words.after)
        answer = () if target is None else target_ids(tokenizer, target)
        titles = [reader.title(title) for title in history]
        if max_length is not None:
            need = len(bos) + len(before) + len(after) + len(answer) + room
            if need > max_length:
                what = "the longest title" if target is None else f"the target {target[:60]!r}"
                raise ValueError(
                    f"the context of {max_length} tokens is too short: the task text and {what} alone need {need} tokens. "
                    "Use a shorter prompt or title, or a model with a longer context."
                )
            titles = _newest_that_fit(titles, max_length - need, len(bullet))
        pieces = [(BOS, bos), (TASK, before)]
        for title in titles:
            pieces += [(TASK, bullet), (HISTORY, title)]
        pieces += [(TASK, after), (TARGET, answer)]
        ids = tuple(i for _, piece in pieces for i in piece)
        segments = tuple(segment for segment, piece in pieces for _ in piece)
        first = len(ids) - len(answer)
        if not first:
            raise ValueError("the prompt is empty: there is no word of the task, no history and no BOS to predict from.")
        return Encoded(ids, segments, tuple(range(first - 1, len(ids) - 1)), answer, (1,) * len(ids))


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


def normal_title(title: str) -> str:
    """The title as it is read and compared: in Unicode's composed form (NFC), so that one look is one title.

    Raises:
        ValueError: the title is no string, is blank, or holds half of a character.
    """
    if not isinstance(title, str):
        raise ValueError(f"the title {title!r} is no text; give every item a name, for example {str(title)!r}.")
    if not title.strip():
        raise ValueError("a title is blank; give every item a name, since the model reads nothing else of it.")
    if title.isascii():
        return title
    if re.search("[\ud800-\udfff]", title):
        raise ValueError(f"the title {title!r} holds half of a character (a lone surrogate); read its file as UTF-8.")
    return unicodedata.normalize("NFC", title)


def title_ids(tokenizer: PreTrainedTokenizerBase, title: str) -> tuple[int, ...]:
    """Token ids of a title, written with the leading space that follows a bullet.

    A title is data: where it spells a control token such as `<|im_end|>`, it gets the ids of these characters.

    Raises:
        ValueError: a title that cannot be read, see `normal_title`; or one without a token of its own.
    """
    return _reader(tokenizer, len(tokenizer)).title(normal_title(title))


def many_title_ids(tokenizer: PreTrainedTokenizerBase, titles: Sequence[str]) -> list[Sequence[int]]:
    """`title_ids` of many titles, tokenised together where the tokenizer allows it."""
    normal, reader = [normal_title(title) for title in titles], _reader(tokenizer, len(tokenizer))
    if reader.letter or not tokenizer.is_fast:
        return [reader.title(title) for title in normal]
    found = tokenizer.backend_tokenizer.encode_batch_fast([" " + title for title in normal], add_special_tokens=False)
    rows: list[Sequence[int]] = []
    for title, ids in zip(normal, (row.ids for row in found), strict=True):
        usual = ids and reader.control.isdisjoint(ids) and not reader.spelled.search(title)
        rows.append(ids if usual else reader.title(title))
    return rows


def target_ids(tokenizer: PreTrainedTokenizerBase, title: str) -> tuple[int, ...]:
    """Token ids of a title as a target: the title, then EOS, without which 'Alien' could not end before 'Aliens'.

    Raises:
        ValueError: as `title_ids`, or the tokenizer has no EOS.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-sequence token, which ends a title; set tokenizer.eos_token.")
    return title_ids(tokenizer, title) + (tokenizer.eos_token_id,)


@lru_cache(maxsize=64)
def opening_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the tokenizer puts in front of a text by itself: BOS, `[CLS]`, or nothing."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = range(len(whole) - len(bare) + 1)
    return next((tuple(whole[:n]) for n in starts if whole[n : n + len(bare)] == bare), ())


def neutral_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that stands for nothing: a blank line to be filled in, or where "_" has no token another small sign.

    An ordinary token, not the unknown or padding token: in many models that is the end of a document, and everything before
    it would be forgotten with it.

    Raises:
        ValueError: the tokenizer knows none of these signs.
    """
    for sign in "_-.*#,0ae":
        ids = _reader(tokenizer, len(tokenizer)).piece(sign)
        if ids and ids[-1] not in tokenizer.all_special_ids:
            return ids[-1]
    raise ValueError("the tokenizer has no token for '_' nor for another small sign, which ablation='token' needs.")


def control_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that steer a model: its special tokens, but for the unknown one, and the markers of its chat template."""
    return _reader(tokenizer, len(tokenizer)).control


class _Reader:
    """How one tokenizer reads the pieces of a prompt.

    Attributes:
        control, spelled: ids of the tokens that steer a model, and a pattern that finds their texts.
        letter: ids of "a", behind which pieces are read, where the tokenizer puts a blank before every text; else nothing.
        opening, piece, title: ids of the beginning of a prompt, of what follows another piece, of a title.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        template = str(tokenizer.chat_template or "")
        added = {i: (token.content, token.special) for i, token in tokenizer.added_tokens_decoder.items()}
        steering = {i: text for i, (text, special) in added.items() if special or text.strip() and text in template}
        self.control = frozenset([*steering, *tokenizer.all_special_ids]) - {tokenizer.unk_token_id}
        texts = sorted({*steering.values(), *tokenizer.all_special_tokens} - {""}, key=len, reverse=True)
        self.spelled = re.compile("|".join(map(re.escape, texts)) or "(?!)", re.IGNORECASE)
        letter, line, joint = map(self._ids, ("a", "\n", "a\n"))
        self.letter = letter if joint != letter + line else ()
        self.opening, self.piece = lru_cache(1_000)(self._ids), lru_cache(10_000)(self._piece)
        self.title = lru_cache(200_000)(self._title)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _piece(self, text: str) -> tuple[int, ...]:
        joint = self._ids("a" + text) if self.letter else ()
        behind = joint[: len(self.letter)] == self.letter and self.letter
        return joint[len(self.letter) :] if behind else self._ids(text)

    def _title(self, title: str) -> tuple[int, ...]:
        # Cut after the first character of what spells a control token, so that no piece spells one.
        text = self.spelled.sub(lambda found: found[0][0] + CUT + found[0][1:], " " + title)
        ids = tuple(i for piece in text.split(CUT) for i in self.piece(piece))
        if not ids or not self.control.isdisjoint(ids):
            what = "holds a control token of the model" if ids else "has no token that the tokenizer knows"
            raise ValueError(f"the title {title[:60]!r} {what}; rename the item.")
        return ids


@lru_cache(maxsize=64)
def _reader(tokenizer: PreTrainedTokenizerBase, size: int) -> _Reader:
    """`size` is len(tokenizer), by which a tokenizer that was extended differs from what it was."""
    return _Reader(tokenizer)


def _newest_that_fit(titles: list[tuple[int, ...]], room: int, bullet: int) -> list[tuple[int, ...]]:
    kept: list[tuple[int, ...]] = []
    for title in reversed(titles):
        room -= bullet + len(title)
        if room < 0:
            break
        kept.append(title)
    if titles and not kept:
        warnings.warn("the whole history of a prompt is longer than the model's context and was cut away.", stacklevel=3)
    return kept[::-1]
