"""Content codings: undone where they were done, passed over where they are only said, bounded in any case."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.fetch.codings import decode_body, decode_text
from curation.fetch.http1 import HttpError
from curation.schema import Status
from tests.support.hostile_pictures import gzip_bomb, jpeg

TEXT = b"User-agent: *\nDisallow: /\n"
LABELS = ("gzip", "x-gzip", "deflate", "br", "none", "utf-8", "identity, identity", "gzip, gzip", "", ",", "image/jpeg")


@pytest.mark.parametrize("encoding", LABELS)
def test_what_was_not_coded_stays(encoding: str) -> None:
    assert decode_body(jpeg(), encoding, 1_000_000) == jpeg()
    assert decode_text(TEXT, encoding, 1_000_000) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "gzip, gzip", "utf-8, gzip", "gzip,identity"])
def test_gzip_is_undone_whatever_stands_beside_it(encoding: str) -> None:
    assert decode_body(gzip.compress(jpeg()), encoding, 1_000_000) == jpeg()
    assert decode_text(gzip.compress(TEXT), encoding, 1_000_000) == TEXT


@pytest.mark.parametrize("window", [15, -15])
def test_deflate_is_undone_with_and_without_its_header(window: int) -> None:
    coding = zlib.compressobj(wbits=window)
    body = coding.compress(jpeg()) + coding.flush()
    assert decode_body(body, "deflate", 1_000_000) == jpeg()


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "gzip, gzip", "br, gzip"])
def test_a_bomb_is_not_unpacked(encoding: str) -> None:
    with pytest.raises(HttpError) as error:
        decode_body(gzip_bomb(), encoding, 1_000_000)
    assert error.value.status is Status.TOO_LARGE
    assert len(decode_text(gzip_bomb(), "gzip", 1_000_000)) == 1_000_000


def test_a_torn_text_counts_as_far_as_it_goes() -> None:
    lines = b"".join(b"Disallow: /%d\n" % (n * 7919 % 100_003) for n in range(5_000))
    found = decode_text(gzip.compress(TEXT + lines)[:5_000], "gzip", 1_000_000)
    assert found.startswith(TEXT) and (TEXT + lines).startswith(found) and len(found) > 5_000


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress"])
def test_a_text_in_a_coding_that_cannot_be_undone_is_none(encoding: str) -> None:
    for body in (b"\x1b\x19\x00\x00" + TEXT, bytes(range(128, 200))):
        with pytest.raises(HttpError) as error:
            decode_text(body, encoding, 1_000_000)
        assert error.value.status is Status.BAD_RESPONSE


@given(st.binary(max_size=200), st.one_of(st.sampled_from(LABELS), st.text(max_size=20)))
def test_any_bytes_end_as_bytes_or_a_status(body: bytes, encoding: str) -> None:
    for undo in (decode_body, decode_text):
        try:
            assert len(undo(body, encoding, 1_000)) <= 1_000
        except HttpError as error:
            assert error.status in (Status.BAD_RESPONSE, Status.TOO_LARGE, Status.TRUNCATED)
