"""The exceptions that a user meets."""


class InputError(Exception):
    """Input that cannot be used: one sentence that names the file, the row and the remedy.

    The command line prints the sentence and exits with code 2.
    """


class Interrupted(Exception):
    """The run was stopped; its checkpoints are written."""
