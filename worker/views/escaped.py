"""Bytes as text that any terminal can show and any shell can take back: how ids that may be anything are written."""

import os
import re

_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(\\))|\\")


def escape(data: bytes) -> str:
    r"""Bytes as printable ASCII without spaces. What has the form of a job id stays as it is.

    >>> escape(b"import-7@user:42"), escape(b"a b\n"), escape(b"C:\\"), escape(b"\xff")
    ('import-7@user:42', 'a\\x20b\\x0a', 'C:\\\\', '\\xff')

    A dash at the beginning would be an option:

    >>> escape(b"--all")
    '\\x2d-all'
    """
    text = "".join(_shown(byte) for byte in data)
    return "\\x2d" + text[1:] if text.startswith("-") else text


def unescape(text: str) -> bytes:
    r"""The bytes that were escaped. Other text, as typed on a command line, stands for itself.

    >>> unescape(escape(bytes(range(256)))) == bytes(range(256))
    True
    >>> unescape("zoë")
    b'zo\xc3\xab'

    Raises:
        ValueError: for a backslash that escapes nothing.
    """

    def read(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return bytes.fromhex(match[1].decode())
        if match[2] is not None:
            return b"\\"
        raise ValueError(r"a backslash is written \\, and any other byte \x and two hexadecimal digits")

    # As the shell gave it: a command line need not be text either.
    return _ESCAPE.sub(read, os.fsencode(text))


def _shown(byte: int) -> str:
    if byte == ord("\\"):
        return "\\\\"
    return chr(byte) if ord("!") <= byte <= ord("~") else f"\\x{byte:02x}"
