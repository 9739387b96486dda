"""The one exception that means "the user can mend this"."""


class InputError(ValueError):
    """A mistake in what the user gave: a file, a setting, a budget.

    The message is one line that names the place, the offending value, what is allowed and the mend.
    The command line prints it without a traceback and exits with status 2.
    """
