"""The one exception that the command line turns into a message and exit status 1."""


class LinearizeError(Exception):
    """Something the user can put right; the message names the file, setting or tensor and the
    limit.
    """
