"""Payloads that nobody can read or change who has none of the keys.

XAES-256-GCM as in the specification of C2SP: AES-256-GCM under a key that is derived for each frame from the first half
of a random nonce of 192 bits. With AES-GCM itself a nonce has 96 bits, and after 2**32 frames under one key, which is a
busy week, two of them are as likely to be the same as is still bearable; and two frames under one nonce show what they
hold. Of nonces of 192 bits, 2**80 may be drawn for the same risk.

What is encrypted stands in a frame as follows.

======  ======  ============================================================================
offset  length  content
======  ======  ============================================================================
0       8       which key: derived from it, and of no use without it
8       24      nonce
32      -       ciphertext
-16     16      its tag, which also covers what is outside: times, generation, codec, sizes and the key of the entry
======  ======  ============================================================================

The key of the cipher is derived from the one given and the namespace, so what was written for one namespace is nothing
in another.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from hashlib import blake2b
from os import urandom
from typing import TYPE_CHECKING, Final

from aurelis.cache.exceptions import ConfigurationError, FrameError, MissingExtraError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Keys = str | bytes | Sequence[str | bytes]
"""One key or several: 32 bytes each, or their text."""

KEY_BYTES: Final = 32
_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 24
_TAG_BYTES: Final = 16
_FIRST_HALF: Final = 12
_BLOCK: Final = 16
_TEXT_AT: Final = _ID_BYTES + _NONCE_BYTES
OVERHEAD: Final = _TEXT_AT + _TAG_BYTES
"""Bytes by which something grows when it is encrypted."""

_HEXADECIMAL: Final = re.compile("[0-9A-Fa-f]{64}")
_HOW: Final = (
    "encryption_key must be 32 random bytes, or their text in hexadecimal or base64, or a sequence of such keys; "
    "`openssl rand -base64 32` makes one"
)


class Encryption:
    """Encrypts under one key, and decrypts under several.

    Threads may share it.

    Args:
        keys: As `parse_keys` returns them. The first encrypts, all decrypt.
        namespace: Of the cache.

    Raises:
        MissingExtraError: There is no package for it.
    """

    __slots__ = ("_first", "_keys", "_primitives")

    def __init__(self, keys: Sequence[bytes], namespace: str) -> None:
        self._primitives = _Primitives()
        derived = [_derived(key, namespace) for key in keys]
        self._first = derived[0][0]
        self._keys = {id_: _MasterKey(key, self._primitives) for id_, key in derived}

    def seal(self, text: bytes, outside: bytes) -> bytes:
        """Return the text encrypted; `outside` is what must be with it when it is read."""
        nonce = urandom(_NONCE_BYTES)
        sealed = self._keys[self._first].cipher(nonce).encrypt(nonce[_FIRST_HALF:], text, outside)
        return b"".join((self._first, nonce, sealed))

    def unseal(self, sealed: bytes, outside: bytes) -> bytes:
        """Return the text.

        Raises:
            FrameError: It is under a key that is not here (reason ``"unknown_key"``), or something was changed in it
                or outside (reason ``"tampered"``).
        """
        if len(sealed) < OVERHEAD:
            raise FrameError("tampered")
        key = self._keys.get(sealed[:_ID_BYTES])
        if key is None:
            raise FrameError("unknown_key")
        nonce = sealed[_ID_BYTES:_TEXT_AT]
        try:
            return key.cipher(nonce).decrypt(nonce[_FIRST_HALF:], sealed[_TEXT_AT:], outside)
        except self._primitives.InvalidTag:
            raise FrameError("tampered") from None


def parse_keys(given: object) -> tuple[bytes, ...]:
    """Return the keys that were given as one or several.

    Raises:
        ConfigurationError: One of them is none, or there is none at all. Shows nothing of them.
    """
    several = given if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [given]
    keys = tuple(_parse(key) for key in several)
    if not keys:
        raise ConfigurationError(_HOW)
    return keys


class _Primitives:
    """What is used of the package, which is imported when it is first needed."""

    __slots__ = ("AESGCM", "InvalidTag", "_algorithms", "_cipher", "_modes")

    def __init__(self) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingExtraError("crypto", "encryption_key") from None
        self.AESGCM = AESGCM
        self.InvalidTag = InvalidTag
        self._cipher, self._modes, self._algorithms = Cipher, modes, algorithms

    def blocks(self, key: bytes, text: bytes) -> bytes:
        """Return each block under AES by itself: a part of a derivation, and no way to encrypt anything else."""
        return self._cipher(self._algorithms.AES256(key), self._modes.ECB()).encryptor().update(text)


class _MasterKey:
    """A key from which those of frames are derived."""

    __slots__ = ("_key", "_primitives", "_whitening")

    def __init__(self, key: bytes, primitives: _Primitives) -> None:
        self._key = key
        self._primitives = primitives
        # The first subkey of CMAC (NIST SP 800-38B §6.1), for two messages of one block.
        doubled = int.from_bytes(primitives.blocks(key, bytes(_BLOCK)), "big") << 1
        subkey = (doubled ^ 0x87 if doubled >> 128 else doubled) & (1 << 128) - 1
        self._whitening = subkey << 128 | subkey

    def cipher(self, nonce: bytes) -> AESGCM:
        """Return the cipher of one frame."""
        half = nonce[:_FIRST_HALF]
        counters = b"".join((b"\0\1X\0", half, b"\0\2X\0", half))
        blocks = (int.from_bytes(counters, "big") ^ self._whitening).to_bytes(2 * _BLOCK, "big")
        return self._primitives.AESGCM(self._primitives.blocks(self._key, blocks))


def _derived(key: bytes, namespace: str) -> tuple[bytes, bytes]:
    """Return the name of the key, and itself, for a namespace."""
    text = namespace.encode("utf-8", "surrogatepass")
    made = blake2b(text, digest_size=_ID_BYTES + KEY_BYTES, key=key, person=b"aurelis-frame").digest()
    return made[:_ID_BYTES], made[_ID_BYTES:]


def _parse(key: object) -> bytes:
    if isinstance(key, bytes):
        text = key.decode("ascii", "replace")
        if len(key) != KEY_BYTES or (key.isascii() and text.isprintable()):
            key = text  # 32 random bytes are no text, but once in 10**13 times
    found = key
    if isinstance(key, str):
        key = key.strip()  # what is read from a file ends in a line end
        try:
            if _HEXADECIMAL.fullmatch(key):
                found = bytes.fromhex(key)
            else:
                standard = key.replace("-", "+").replace("_", "/").rstrip("=")
                found = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except (ValueError, binascii.Error):
            found = None
    if not isinstance(found, bytes) or len(found) != KEY_BYTES:
        raise ConfigurationError(_HOW)
    if len(set(found)) == 1:
        raise ConfigurationError("encryption_key must be random bytes, and all of these are the same")
    return found
