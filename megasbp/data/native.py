"""Errors of the C++ core and of the operating system as this package's errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megasbp.errors import InputError


@contextmanager
def native_errors(place: str) -> Iterator[None]:
    """Turns a ValueError or IndexError of the C++ core into an InputError that begins with `place`.

    Failed system calls stay OSError, with errno and the file's name.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, IndexError) as error:
        message = str(error)
        raise InputError(message if message.startswith(place) else f"{place}: {message}") from None


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Gives an OSError of Python's file.write, which knows only its errno, the file's name."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
