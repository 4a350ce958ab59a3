"""What is wrong with a request."""


class RequestError(ValueError):
    """A request that cannot be answered, with the reason."""
