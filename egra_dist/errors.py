"""The one exception that is the user's to mend."""


class UserError(ValueError):
    """Bad input: a file, a field, a setting.

    The message is one line that names the file, row or field, the value found, and what is
    allowed. The command line prints it without a traceback and exits with status 2.
    """
