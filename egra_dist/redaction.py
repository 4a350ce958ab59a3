"""Passwords and tokens: what must not be written into a log, a record or a job."""

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_SECRET_NAME = re.compile(r"(KEY|TOKEN)S?(_|$)|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_FILE_NAME = re.compile(r"_(PATH|FILE)$", re.IGNORECASE)
# A password may hold slashes, a user's name may not; a path has one slash for two.
_IN_URI = re.compile(r"""(\b[a-z][a-z0-9+.-]*:/+)(?:[^\s/?#"']*|[^\s:/@"']*:[^\s"']*)@""", re.I)
_IN_QUERY = re.compile(
    r"""([?&][\w.-]*(?:key|token|secret|passw|credential)[\w.-]*=)[^&\s"']+""", re.I
)
_SHORTEST = 6  # what is shorter, such as "true", stands in texts that have nothing to do with it


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret, and not the name of a file."""
    return bool(_SECRET_NAME.search(name)) and not _FILE_NAME.search(name)


def redact(text: str) -> str:
    """The text without what it gives away.

    Credentials in URIs are hidden, and the values of this process's environment variables whose
    names have a ``KEY`` or ``TOKEN`` in them or speak of secrets, passwords or credentials.
    """
    text = _IN_QUERY.sub(rf"\1{HIDDEN}", _IN_URI.sub(rf"\1{HIDDEN}@", text))
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and value in text and is_secret_name(name):
            text = text.replace(value, HIDDEN)
    return text


def redacted(content: Any) -> Any:
    """The same of every text in nested mappings and lists."""
    if isinstance(content, str):
        return redact(content)
    if isinstance(content, Mapping):
        return {key: redacted(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [redacted(value) for value in content]
    return content
