"""The error that ends a command, and the shape of every line that the command line says about a failure."""


class CommandError(Exception):
    """Wrong usage, or nothing can be done: one line, exit status 2."""


def one_line(error: BaseException) -> str:
    """The first line of an error's message; its class where it has none, or where the class is half the message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if isinstance(error, (KeyError, AssertionError, MemoryError)):
        return f"{type(error).__name__}: {lines[0]}"
    return lines[0]
