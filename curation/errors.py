"""The one exception that means "the user can fix this"."""

from __future__ import annotations


class UserError(Exception):
    """Bad input, said in one sentence: what is wrong and what to do.

    The command line prints the sentence and exits with status 2; nothing has been written when it is raised
    while arguments, recipes and inputs are checked.
    """
