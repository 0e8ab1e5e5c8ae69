"""What is sealed can be opened as what it is, with a key that is here, and not otherwise."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contexts import Cipher, KeyFileError, Place, load_keys, new_key
from gateway.contexts.cipher import OVERHEAD_BYTES, DamagedError
from gateway.contexts.store import name_of

OLD, NEW = b"o" * 32, b"n" * 32
BODY = b"the plan, and what was said about it"
PLACE = Place(name_of("c-17"), sha256(BODY).hexdigest())


@given(st.binary(max_size=300))
def test_what_is_sealed_comes_back_with_the_time_it_was_stored(body: bytes) -> None:
    sealed = Cipher([NEW]).seal(PLACE, body, 1_790_000_000.25)
    assert Cipher([NEW]).open(PLACE, sealed) == (body, 1_790_000_000.25)
    assert len(sealed) == len(body) + OVERHEAD_BYTES


def test_no_byte_can_be_changed() -> None:
    cipher = Cipher([NEW])
    sealed = cipher.seal(PLACE, BODY, 5.0)
    for index in range(len(sealed)):
        changed = sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :]
        with pytest.raises(DamagedError):
            cipher.open(PLACE, changed)
    for length in range(len(sealed)):
        with pytest.raises(DamagedError):
            cipher.open(PLACE, sealed[:length])


@pytest.mark.parametrize("place", [PLACE._replace(conversation=name_of("c-18")), PLACE._replace(digest="00" * 32)])
def test_it_cannot_be_passed_off_as_another(place: Place) -> None:
    with pytest.raises(DamagedError, match="of another conversation"):
        Cipher([NEW]).open(place, Cipher([NEW]).seal(PLACE, BODY, 5.0))


def test_the_first_key_seals_and_each_opens() -> None:
    before, after = Cipher([OLD]).seal(PLACE, BODY, 5.0), Cipher([NEW, OLD]).seal(PLACE, BODY, 5.0)
    assert Cipher([NEW, OLD]).open(PLACE, before).body == BODY
    assert Cipher([NEW]).open(PLACE, after).body == BODY
    with pytest.raises(DamagedError, match="not among"):
        Cipher([NEW]).open(PLACE, before)


def test_a_key_file_is_read_as_it_was_made_and_never_told(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(new_key(lambda _: NEW))
    assert load_keys([good]) == [NEW]
    for text in ("c2VjcmV0\n", "secret!", ""):
        bad.write_text(text)
        with pytest.raises(KeyFileError, match="expected 32 bytes") as told:
            load_keys([good, bad])
        assert "secret" not in str(told.value)
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_keys([tmp_path / "none"])
