"""What files are called in a directory of copies: by their category, and by what is in them."""

from __future__ import annotations

import hashlib
import os
import stat
from io import BufferedReader
from typing import Final
from urllib.parse import unquote

from ._keys import escape
from .exceptions import ConfigurationError

_LONGEST_NAME: Final = 200
"""Bytes of a directory's name; file systems take 255."""


def folder_of(category: str) -> str:
    """The name of a category's directory. Different categories have different ones, and none leads elsewhere.

    Raises:
        ConfigurationError: the category is empty or too long.
        TypeError: it is no string.
    """
    if not isinstance(category, str):
        raise TypeError(f"a category must be a str, not {type(category).__name__}")
    name = escape(category)
    if name.startswith("."):  # neither "." nor "..", nor one of the store's own
        name = "%2E" + name[1:]
    if not 0 < len(name) <= _LONGEST_NAME:
        raise ConfigurationError(f"a category must have 1 to {_LONGEST_NAME} characters, as they are written in keys")
    return name


def is_folder(name: str) -> bool:
    """Whether it is the name of some category's directory."""
    try:
        return folder_of(unquote(name, errors="surrogatepass")) == name
    except (ConfigurationError, UnicodeError):
        return False


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of what is in a file, in constant memory.

    Raises:
        OSError: it could not be read.
        ConfigurationError: it is no regular file.
    """
    with opened(path) as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def opened(path: str | os.PathLike[str]) -> BufferedReader:
    """A file, opened for reading.

    Raises:
        OSError: it could not be read.
        ConfigurationError: it is no regular file.
    """
    # Not blocking, or a pipe would let us wait for whoever writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    if file is None:
        os.close(descriptor)
        raise ConfigurationError("only regular files can be cached; this is a directory, a device or a pipe")
    return file
