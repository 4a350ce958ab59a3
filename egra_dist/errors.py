"""The one exception that is the user's to mend, and how a command that was stopped exits."""

EXIT_STOPPED = 75
"""Exit status of a command that was told to end (SIGTERM) and did so in order: the same command
goes on where it stopped. It is ``EX_TEMPFAIL`` of ``sysexits.h``: not done, try again."""


class UserError(ValueError):
    """Bad input: a file, a field, a setting.

    The message is one line that names the file, row or field, the value found, and what is
    allowed. The command line prints it without a traceback and exits with status 2.
    """
