"""Says in words where two results differ, within a tolerance, whatever their types."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Set
from numbers import Number
from typing import Any

import numpy as np

ABSOLUTE = 1e-6  # differences below this never count, so that zeros compare


def difference(expected: Any, answer: Any, tolerance: float = 1e-4, where: str = "the result") -> str | None:
    """The first difference between two results in words, or None where they agree.

    Numbers agree within `tolerance` (relative) or 1e-6 (absolute); NaN agrees with NaN. Tensors, arrays,
    lists, tuples and Series of numbers agree when shape and values do, whichever they are; a Series stands for a dict too.
    Where a Series or DataFrame is expected, row order and index count, column order does not.
    """
    if _is_frame(answer) and not hasattr(answer, "columns") and not _is_frame(expected):
        answer = answer.to_dict() if isinstance(expected, Mapping) else answer.tolist()
    if _is_frame(expected) or _is_frame(answer):
        return _frames(expected, answer, tolerance, where)
    if isinstance(expected, Mapping) or isinstance(answer, Mapping):
        return _mappings(expected, answer, tolerance, where)
    if isinstance(expected, Set) or isinstance(answer, Set):
        return None if _safely_equal(expected, answer) else _say(where, expected, answer)
    left, right = _array(expected), _array(answer)
    if left is not None and right is not None:
        return _arrays(left, right, tolerance, where)
    if _is_sequence(expected) and _is_sequence(answer):
        return _sequences(list(expected), list(answer), tolerance, where)
    return None if _safely_equal(expected, answer) else _say(where, expected, answer)


def show(value: Any, width: int = 120) -> str:
    """A value on one line, cut to `width` characters."""
    if _is_tensor(value):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        value = np.array2string(value, precision=4, threshold=12, separator=", ")
    elif isinstance(value, (float, np.floating)):
        value = f"{value:.4g}"
    elif _is_frame(value):
        value = f"{type(value).__name__}({value.to_dict()})"
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _say(where: str, expected: Any, answer: Any) -> str:
    quote = repr if isinstance(expected, str) or isinstance(answer, str) else show
    return f"{where} is {quote(answer)}, expected {quote(expected)}"


def _arrays(expected: np.ndarray, answer: np.ndarray, tolerance: float, where: str) -> str | None:
    if expected.shape != answer.shape:
        return f"{where} has shape {answer.shape}, expected {expected.shape}"
    if (expected.dtype == bool) != (answer.dtype == bool):
        names = [("true or false" if a.dtype == bool else "a number") for a in (answer, expected)]
        return f"{where} is {names[0]}, expected {names[1]}"
    close = np.isclose(answer, expected, rtol=tolerance, atol=ABSOLUTE, equal_nan=True)
    if close.all():
        return None
    if expected.ndim == 0:
        return _say(where, expected.item(), answer.item())
    first = tuple(int(i) for i in np.argwhere(~close)[0])
    at = ", ".join(map(str, first))
    return _say(f"{where}[{at}]", expected[first].item(), answer[first].item())


def _sequences(expected: list, answer: list, tolerance: float, where: str) -> str | None:
    if len(expected) != len(answer):
        return f"{where} has {len(answer)} entries, expected {len(expected)}"
    pairs = (difference(e, a, tolerance, f"{where}[{i}]") for i, (e, a) in enumerate(zip(expected, answer)))
    return next((found for found in pairs if found), None)


def _mappings(expected: Any, answer: Any, tolerance: float, where: str) -> str | None:
    if not isinstance(expected, Mapping) or not isinstance(answer, Mapping):
        return f"{where} is a {type(answer).__name__}, expected a {type(expected).__name__}"
    for key in expected:
        if key not in answer:
            return f"{where} has no key {key!r}"
        if found := difference(expected[key], answer[key], tolerance, f"{where}[{key!r}]"):
            return found
    extra = [key for key in answer if key not in expected]
    return f"{where} has a key {extra[0]!r} too many" if extra else None


def _frames(expected: Any, answer: Any, tolerance: float, where: str) -> str | None:
    if type(expected) is not type(answer):
        return f"{where} is a {type(answer).__name__}, expected a {type(expected).__name__}"
    if found := difference(list(expected.index), list(answer.index), tolerance, f"the index of {where}"):
        return found
    if not hasattr(expected, "columns"):
        return difference(expected.tolist(), answer.tolist(), tolerance, where)
    names = {name: expected[name].tolist() for name in expected.columns}
    return _mappings(names, {name: answer[name].tolist() for name in answer.columns}, tolerance, where)


def _array(value: Any) -> np.ndarray | None:
    """A value as a numeric or boolean array, or None where it is neither."""
    if _is_tensor(value):
        value = value.detach().cpu()
        value = value.double().numpy() if value.is_floating_point() else value.numpy()
    elif _is_sequence(value):
        parts = [part for part in map(_array, value) if part is not None]
        if len(parts) < len(value) or len({part.shape for part in parts}) > 1:
            return None
        value = np.array(parts) if parts else np.empty(0)
    elif not isinstance(value, (Number, np.generic, np.ndarray)):
        return None
    array = np.asarray(value)
    return array if array.dtype.kind in "biufc" else None


def _safely_equal(expected: Any, answer: Any) -> bool:
    try:
        return bool(expected == answer)
    except Exception:  # an __eq__ that returns no truth value: not equal for us
        return False


def _is_sequence(value: Any) -> bool:
    if isinstance(value, np.ndarray):  # of strings or objects; numbers are arrays
        return value.dtype.kind not in "biufc"
    return isinstance(value, (list, tuple, range))


def _is_tensor(value: Any) -> bool:
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def _is_frame(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series, pandas.Index))


def materialise(value: Any) -> Any:
    """An iterator as a list, so that it can be compared more than once; any other value as it is."""
    return list(value) if isinstance(value, Iterator) else value
