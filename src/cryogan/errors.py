"""The exceptions that a user meets."""


class InputError(Exception):
    """Input that cannot be used: one sentence that names the file, the row and the remedy.

    The command line prints the sentence and exits with code 2.
    """


class RankFailed(InputError):
    """The same in one process of a distributed job, which says it itself; the others keep silent."""


class Interrupted(Exception):
    """The run was stopped; its checkpoints are written."""
