"""The one error a user may meet: a sentence that says what is wrong and what to do."""


class UserError(Exception):
    """Wrong input: the message names the file, key or value, what was expected, and what to do.

    Whoever talks to the user (a stage, a flow, the service) prints the message without a stack trace.
    """


def one_line(error: Exception) -> str:
    """Return what a library's error says, its line breaks taken out, for a sentence of ours."""
    return " ".join(str(error).split())
