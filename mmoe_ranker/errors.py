"""The one exception for what a user can put right: wrong use and bad input."""

from __future__ import annotations


class InputError(ValueError):
    """Wrong use or bad input, said in one sentence: what, where, what is allowed, what was received.

    The command line prints the sentence and exits with status 2; a traceback of this type never reaches a user.
    """
