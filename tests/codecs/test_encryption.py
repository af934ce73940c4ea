"""What was encrypted is read with its key and unchanged, and otherwise not at all."""

import base64
import hashlib
import io

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.codecs import _encryption
from aurelis.cache.codecs._encryption import OVERHEAD, Encryption, parse_keys
from aurelis.cache.exceptions import ConfigurationError, FrameError

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


def reason(encryption: Encryption, sealed: bytes, outside: bytes = b"") -> str:
    with pytest.raises(FrameError) as raised:
        encryption.unseal(sealed, outside)
    return raised.value.reason


@pytest.mark.parametrize(
    ("key", "associated", "sealed"),
    [
        (b"\x01", b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03", b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
    ids=["without carry", "with carry"],
)
def test_the_cipher_is_that_of_the_specification(key: bytes, associated: bytes, sealed: str) -> None:
    """The examples of C2SP's XAES-256-GCM."""
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    master = _encryption._MasterKey(key * 32, _encryption._Primitives())
    assert master.cipher(nonce).encrypt(nonce[12:], b"XAES-256-GCM", associated).hex() == sealed


def test_ten_thousand_texts_are_encrypted_as_by_the_specification() -> None:
    """Its accumulated test: keys, nonces, texts and associated data of a known generator, and a hash of all results."""
    generated = io.BytesIO(hashlib.shake_128().digest(10_000 * (32 + 24 + 2 * 256)))
    primitives, results = _encryption._Primitives(), hashlib.shake_128()
    for _ in range(10_000):
        key, nonce = generated.read(32), generated.read(24)
        text = generated.read(generated.read(1)[0])
        associated = generated.read(generated.read(1)[0])
        cipher = _encryption._MasterKey(key, primitives).cipher(nonce)
        results.update(cipher.encrypt(nonce[12:], text, associated))
    assert results.hexdigest(32) == "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_unsealing_inverts_sealing(text: bytes, outside: bytes) -> None:
    encryption = Encryption((OLD,), "ns")
    sealed = encryption.seal(text, outside)
    assert len(sealed) == len(text) + OVERHEAD
    assert encryption.unseal(sealed, outside) == text


def test_each_bit_counts_inside_and_outside() -> None:
    encryption = Encryption((OLD,), "ns")
    sealed, outside = encryption.seal(b"text", b"outside"), b"outside"
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        assert reason(encryption, bytes(changed), outside) == ("unknown_key" if bit < 64 else "tampered")
    for bit in range(8 * len(outside)):
        changed = bytearray(outside)
        changed[bit // 8] ^= 1 << bit % 8
        assert reason(encryption, sealed, bytes(changed)) == "tampered"


def test_whatever_is_cut_off_is_missed() -> None:
    encryption = Encryption((OLD,), "ns")
    sealed = encryption.seal(b"some text", b"")
    assert {reason(encryption, sealed[:length]) for length in range(len(sealed))} == {"tampered"}
    assert reason(encryption, sealed + b"\0") == "tampered"


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    before, both, after = Encryption((OLD,), "ns"), Encryption((NEW, OLD), "ns"), Encryption((NEW,), "ns")
    assert both.unseal(before.seal(b"a", b""), b"") == b"a"
    assert after.unseal(both.seal(b"b", b""), b"") == b"b"
    assert reason(before, both.seal(b"b", b"")) == "unknown_key"
    assert reason(after, before.seal(b"a", b"")) == "unknown_key"


def test_another_namespace_has_other_keys() -> None:
    ours, theirs = Encryption((OLD,), "ours"), Encryption((OLD,), "theirs")
    assert reason(theirs, ours.seal(b"a", b"")) == "unknown_key"
    sealed = ours.seal(b"a", b"")
    assert reason(theirs, theirs.seal(b"a", b"")[:8] + sealed[8:]) == "tampered"


def test_equal_texts_have_nothing_in_common_but_the_name_of_the_key() -> None:
    encryption = Encryption((OLD,), "ns")
    many = [encryption.seal(b"the same", b"") for _ in range(1000)]
    assert len({sealed[:8] for sealed in many}) == 1
    assert len({sealed[8:32] for sealed in many}) == 1000
    assert len({sealed[32:] for sealed in many}) == 1000


def test_no_frame_is_encrypted_under_the_key_itself() -> None:
    """By which two frames with one nonce of 96 bits show nothing of each other."""
    sealed = Encryption((OLD,), "ns").seal(b"text", b"")
    _, derived = _encryption._derived(OLD, "ns")
    for key in (OLD, derived):
        with pytest.raises(InvalidTag):
            AESGCM(key).decrypt(sealed[20:32], sealed[32:], b"")


@pytest.mark.parametrize(
    "given_key",
    [
        OLD,
        OLD.hex(),
        OLD.hex().upper(),
        base64.b64encode(OLD).decode(),
        base64.urlsafe_b64encode(OLD).decode(),
        base64.b64encode(OLD).decode().rstrip("="),
        OLD.hex() + "\n",
        base64.urlsafe_b64encode(OLD) + b"\n",
        [OLD],
        (OLD.hex(),),
    ],
    ids=str,
)
def test_a_key_is_bytes_or_their_text(given_key: object) -> None:
    assert parse_keys(given_key) == (OLD,)


def test_base64_of_urls_is_base64() -> None:
    key = b"\xfb\xff" * 16
    assert "-" in base64.urlsafe_b64encode(key).decode()
    assert parse_keys(base64.urlsafe_b64encode(key).decode()) == (key,)


def test_several_keys_keep_their_order() -> None:
    assert parse_keys([NEW, OLD.hex()]) == (NEW, OLD)


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            b"",
            "",
            b"a" * 16,
            bytes(range(33)),
            b"\xff" * 44,
            "correct horse battery staple",
            b"correct horse battery staple 123",  # 32 bytes
            b"0123456789abcdef0123456789abcdee",  # 16, written out
            OLD.hex()[:-2],
            OLD.hex() + "0",
        ),
        *(None, 5, [], [None], bytearray(OLD)),
    ],
    ids=repr,
)
def test_anything_else_is_refused_and_not_shown(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="32 random bytes") as raised:
        parse_keys(wrong)
    assert "horse" not in str(raised.value)
    assert OLD.hex()[:10] not in str(raised.value)
