"""Checks of notebook 90, the workshop: two exercises of the course in a shorter form."""

from __future__ import annotations

from dataclasses import replace

from gdrt_lite.course.checks import nb01, nb05

_ABLATIONS = {exercise.id: exercise for exercise in nb01.EXERCISES}["01.2"]
_PENCIL = {exercise.id: exercise for exercise in nb05.EXERCISES}["05.1"]
_SHORT = ("token", "delete")  # in ninety minutes nobody writes the third, "resample"

EXERCISES = [
    replace(
        _ABLATIONS,
        id="90.1",
        title="Leave a segment out",
        cases=[case for case in _ABLATIONS.inputs() if case[2] in _SHORT],
        mistakes=[mistake for mistake in _ABLATIONS.mistakes if mistake.wrong in (nb01._all_the_rest, nb01._one_blank)],
    ),
    replace(_PENCIL, id="90.2"),
]
