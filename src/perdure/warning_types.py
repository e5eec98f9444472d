"""Everything perdure warns of: one tree, each warning naming the thing, the cause and the remedy.

They go to Python's `warnings`, which can make errors of them, or be quiet. One that comes about in the background is
given by the event loop itself, so that an error never ends what keeps actors going.
"""

from __future__ import annotations


class PerdureWarning(UserWarning):
    """Base of perdure's warnings."""


class UnknownKindWarning(PerdureWarning):
    """Mail waits for a kind that no imported module defines, or that no process has the tags for; it is left alone."""


class DuplicateWorkWarning(PerdureWarning):
    """A message without an id equals one that an earlier process left unfinished: give work an id."""


class LargeStateWarning(PerdureWarning):
    """An actor's state has grown past 256 KiB and is written at every turn that changes it."""


class LimitWarning(PerdureWarning):
    """Another process defines a `Limit` otherwise than this one does; the one that was started last is right."""


class BlockedLoopWarning(PerdureWarning):
    """A handler blocks the event loop, and with it every actor: call what blocks in a plain `@step`, or await it."""


class IdleTurnWarning(PerdureWarning):
    """A handler waits for long for something that perdure does not know: use `perdure.sleep`, a step or a message."""


class EffectWarning(PerdureWarning):
    """A handler writes a file, connects or starts a program outside a step, and would do so again on replay.

    Noticed in tests (`perdure.testing.plugin`) and where the event loop is debugged (`python -X dev`).
    """
