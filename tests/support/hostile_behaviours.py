"""What the web does to a downloader, each by its name, with the status in which a row that meets it must end.

Adding one is adding a function: `@on_web(Status.OK)` serves `http://NAME.hostile.test/picture.jpg`.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import random
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from curation.schema import Status
from tests.support import hostile_pictures as made
from tests.support.hostile_server import DOMAIN, Exchange, Serve

DRIP_S = 0.1
MAX_BYTES = 2_000_000
TIMEOUT_S = 3.0
"""Deadline of the behaviours that end in status timeout; it passes on a clock that the test moves."""
OPTED_OUT = f"http://opted-out-url.{DOMAIN}/picture.jpg"


@dataclass(frozen=True)
class Behaviour:
    """`detail` is text that the row's detail must hold."""

    name: str
    status: Status
    url: str
    serve: Serve | None = None
    robots: Serve | None = None
    detail: str = ""
    claimed_sha256: str | None = None

    @property
    def label(self) -> str:
        return self.name.replace("_", "-")


BEHAVIOURS: dict[str, Behaviour] = {}


def add(behaviour: Behaviour) -> None:
    assert behaviour.name not in BEHAVIOURS, f"two behaviours are called {behaviour.name}"
    BEHAVIOURS[behaviour.name] = behaviour


def on_web(status: Status, detail: str = "", path: str = "/picture.jpg") -> Callable[[Serve], Serve]:
    """Register the decorated function under its own name."""

    def register(serve: Serve) -> Serve:
        name = serve.__name__
        add(Behaviour(name, status, f"http://{name.replace('_', '-')}.{DOMAIN}{path}", serve, detail=detail))
        return serve

    return register


def served(name: str, status: Status, body: bytes | Callable[[], bytes], detail: str = "", **headers: str) -> None:
    """A well-formed answer with `body`."""

    async def serve(e: Exchange) -> None:
        await e.answer(200, body if isinstance(body, bytes) else body(), **headers)

    add(Behaviour(name, status, f"http://{name.replace('_', '-')}.{DOMAIN}/picture.jpg", serve, detail=detail))


def raw(name: str, status: Status, head: str, body: bytes = b"", detail: str = "") -> None:
    """An answer written out; then the connection closes."""

    async def serve(e: Exchange) -> None:
        await e.raw(head, body)

    add(Behaviour(name, status, f"http://{name.replace('_', '-')}.{DOMAIN}/picture.jpg", serve, detail=detail))


def coded(code: int, status: Status, name: str = "", **headers: str) -> None:
    """An answer of one code, with a small page."""

    async def serve(e: Exchange) -> None:
        await e.answer(code, b"<html>no</html>", **headers)

    name = name or f"code_{code}"
    add(Behaviour(name, status, f"http://{name.replace('_', '-')}.{DOMAIN}/picture.jpg", serve, detail=f"HTTP {code}"))


def redirected(name: str, status: Status, location: str, detail: str = "", code: int = 302) -> None:
    """A redirect; `/there.jpg` on the same host has a picture."""

    async def serve(e: Exchange) -> None:
        if e.path.startswith("/there"):
            await e.answer(200, made.jpeg())
        else:
            await e.answer(code, b"", Location=location)

    add(Behaviour(name, status, f"http://{name.replace('_', '-')}.{DOMAIN}/picture.jpg", serve, detail=detail))


def asked(name: str, status: Status, url: str, detail: str = "") -> None:
    """A URL; where it can be fetched at all, there is a picture."""

    async def serve(e: Exchange) -> None:
        await e.answer(200, made.jpeg())

    add(Behaviour(name, status, url, serve, detail=detail))


def ruled(name: str, status: Status, robots: str | Serve, detail: str = "", path: str = "/picture.jpg") -> None:
    """A picture behind a robots.txt."""

    async def serve(e: Exchange) -> None:
        await e.answer(200, made.jpeg())

    async def text(e: Exchange) -> None:
        await e.answer(200, robots.encode("utf-8"), Content_Type="text/plain")  # type: ignore[union-attr]

    rules = text if isinstance(robots, str) else robots
    add(Behaviour(name, status, f"http://{name.replace('_', '-')}.{DOMAIN}{path}", serve, rules, detail))


# Answers that come slowly, without end, or not at all.


@on_web(Status.OK)
async def plain_picture(e: Exchange) -> None:
    await e.answer(200, made.jpeg(), Content_Type="image/jpeg")


@on_web(Status.TIMEOUT, "no answer within")
async def drip_headers(e: Exchange) -> None:
    await e.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await e.send(b"X-A: b\r\n")
        await asyncio.sleep(DRIP_S)


@on_web(Status.TIMEOUT, "no whole picture within")
async def drip_body(e: Exchange) -> None:
    await e.raw(f"HTTP/1.1 200 OK\nContent-Length: {len(made.jpeg())}")
    for byte in made.jpeg():
        await e.send(bytes([byte]))
        await asyncio.sleep(DRIP_S)


@on_web(Status.TIMEOUT, "no answer within")
async def silent(e: Exchange) -> None:
    await asyncio.sleep(60)


@on_web(Status.TIMEOUT, "no whole picture within")
async def stops_after_headers(e: Exchange) -> None:
    await e.raw("HTTP/1.1 200 OK\nContent-Length: 1000")
    await asyncio.sleep(60)


@on_web(Status.TIMEOUT)
async def drip_redirects(e: Exchange) -> None:
    """Each hop takes most of the deadline: it is one deadline for all of them."""
    await asyncio.sleep(0.6 * TIMEOUT_S)
    await e.answer(302, b"", Location=f"{e.path}x")


@on_web(Status.TOO_LARGE, "more than")
async def endless_body(e: Exchange) -> None:
    await e.raw("HTTP/1.1 200 OK\nContent-Type: image/jpeg", made.jpeg())
    while True:
        await e.send(bytes(64 << 10))


@on_web(Status.TOO_LARGE, "more than")
async def endless_chunks(e: Exchange) -> None:
    await e.raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked")
    while True:
        await e.send(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


@on_web(Status.BAD_RESPONSE, "bytes of headers")
async def endless_headers(e: Exchange) -> None:
    await e.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await e.send(b"X-Filler: " + b"a" * 4000 + b"\r\n")


@on_web(Status.BAD_RESPONSE, "bytes of headers")
async def endless_header_line(e: Exchange) -> None:
    await e.send(b"HTTP/1.1 200 OK\r\nX-Filler: ")
    while True:
        await e.send(b"a" * 4000)


@on_web(Status.BAD_RESPONSE, "endless line")
async def endless_chunk_extension(e: Exchange) -> None:
    await e.raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"5;")
    while True:
        await e.send(b"a" * 4000)


@on_web(Status.BAD_RESPONSE, "endless trailers")
async def endless_trailers(e: Exchange) -> None:
    await e.raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"0\r\n")
    while True:
        await e.send(b"X-A: b\r\n" * 100)


@on_web(Status.BAD_RESPONSE, "HTTP 100")
async def endless_continues(e: Exchange) -> None:
    while True:
        await e.send(b"HTTP/1.1 100 Continue\r\n\r\n")


# Connections that break.


@on_web(Status.DISCONNECTED)
async def closed_before_headers(e: Exchange) -> None:
    pass


@on_web(Status.DISCONNECTED)
async def closed_inside_headers(e: Exchange) -> None:
    await e.send(b"HTTP/1.1 200 OK\r\nContent-Le")


@on_web(Status.DISCONNECTED)
async def reset_before_headers(e: Exchange) -> None:
    e.reset()


@on_web(Status.TRUNCATED)
async def reset_inside_body(e: Exchange) -> None:
    await e.raw("HTTP/1.1 200 OK\nContent-Length: 200000", bytes(100_000))
    await asyncio.sleep(0.05)
    e.reset()


@on_web(Status.TRUNCATED)
async def reset_inside_body_without_length(e: Exchange) -> None:
    await e.raw("HTTP/1.1 200 OK", made.jpeg()[:500])
    await asyncio.sleep(0.05)
    e.reset()


@on_web(Status.OK)
async def closes_what_it_said_to_keep(e: Exchange) -> None:
    await e.answer(200, made.jpeg(), Connection="keep-alive")
    e.keep = False


@on_web(Status.OK)
async def broken_twice_then_fine(e: Exchange) -> None:
    if e.times < 2:
        e.reset()
    else:
        await e.answer(200, made.jpeg())


# Framing.

JPEG = made.jpeg()
raw("no_length_at_all", Status.OK, "HTTP/1.1 200 OK", JPEG)
raw("http_1_0", Status.OK, "HTTP/1.0 200 OK\nContent-Type: image/jpeg", JPEG)
raw("length_too_short", Status.TRUNCATED, f"HTTP/1.1 200 OK\nContent-Length: {len(JPEG) // 2}", JPEG)
raw("length_too_long", Status.TRUNCATED, f"HTTP/1.1 200 OK\nContent-Length: {len(JPEG) + 9}", JPEG)
raw("two_lengths", Status.BAD_RESPONSE, f"HTTP/1.1 200 OK\nContent-Length: {len(JPEG)}\nContent-Length: 5", JPEG)
raw("the_same_length_twice", Status.OK, f"HTTP/1.1 200 OK\nContent-Length: {len(JPEG)}, {len(JPEG)}", JPEG)
raw("negative_length", Status.BAD_RESPONSE, "HTTP/1.1 200 OK\nContent-Length: -1", JPEG)
raw("length_in_words", Status.BAD_RESPONSE, "HTTP/1.1 200 OK\nContent-Length: many", JPEG)
raw("large_length", Status.TOO_LARGE, "HTTP/1.1 200 OK\nContent-Length: 99999999999", detail="announced")
raw("length_after_zeros", Status.OK, f"HTTP/1.1 200 OK\nContent-Length: {'0' * 30}{len(JPEG)}", JPEG)
raw("absurd_length", Status.TOO_LARGE, f"HTTP/1.1 200 OK\nContent-Length: {'9' * 4000}", detail="announced")
CHUNKS = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (JPEG[:7], JPEG[7:300], JPEG[300:]))
CHUNKED = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked"
raw("chunked", Status.OK, CHUNKED, CHUNKS + b"0\r\n\r\n")
raw("chunked_with_trailers", Status.OK, CHUNKED, CHUNKS + b"0\r\nX-A: b\r\nX-C: d\r\n\r\n")
raw("chunked_with_extensions", Status.OK, CHUNKED, CHUNKS.replace(b"7\r\n", b"7;a=b\r\n", 1) + b"0;c\r\n\r\n")
raw("chunked_and_length", Status.OK, f"{CHUNKED}\nContent-Length: 5", CHUNKS + b"0\r\n\r\n")
raw("chunked_without_end", Status.TRUNCATED, CHUNKED, CHUNKS)
raw("chunked_without_last_line", Status.TRUNCATED, CHUNKED, CHUNKS + b"0\r\n")
raw("chunk_size_in_words", Status.TRUNCATED, CHUNKED, b"many\r\n" + CHUNKS)
raw("chunk_size_negative", Status.TRUNCATED, CHUNKED, b"-5\r\n" + CHUNKS)
raw("chunk_size_gigantic", Status.TRUNCATED, CHUNKED, b"fffffffffffffff\r\n" + JPEG)
raw("chunk_longer_than_said", Status.TRUNCATED, CHUNKED, b"5\r\n" + JPEG + b"\r\n0\r\n\r\n", "without an end")
raw("unknown_transfer_coding", Status.BAD_RESPONSE, "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked", CHUNKS)
raw("a_second_answer_behind", Status.OK, f"HTTP/1.1 200 OK\nContent-Length: {len(JPEG)}", JPEG + b"HTTP/1.1 200 OK\r\n")
raw("folded_header", Status.OK, f"HTTP/1.1 200 OK\nX-A: b\n   c: d\nContent-Length: {len(JPEG)}", JPEG)
raw("headers_of_garbage", Status.OK, f"HTTP/1.1 200 OK\n\x00\x01: \x02\n:\nContent-Length: {len(JPEG)}", JPEG)
raw("garbage_status_line", Status.BAD_RESPONSE, "SSH-2.0-OpenSSH_9.2", detail="no HTTP/1 status line")
raw("status_line_without_code", Status.BAD_RESPONSE, "HTTP/1.1 OK", JPEG)
raw("http_2_status_line", Status.BAD_RESPONSE, "HTTP/2 200", JPEG)
raw("continue_then_picture", Status.OK, f"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nContent-Length: {len(JPEG)}", JPEG)
raw("early_hints", Status.OK, f"HTTP/1.1 103 Early\nLink: </a>\n\nHTTP/1.1 200 OK\nContent-Length: {len(JPEG)}", JPEG)
raw("switching_protocols", Status.BAD_RESPONSE, "HTTP/1.1 101 Switching Protocols\nUpgrade: h2c", detail="HTTP 101")


@on_web(Status.OK)
async def bare_newlines(e: Exchange) -> None:
    await e.send(b"HTTP/1.1 200 OK\nContent-Length: %d\n\n" % len(JPEG) + JPEG)


@on_web(Status.OK)
async def bare_newlines_and_a_body_with_others(e: Exchange) -> None:
    body = JPEG + b"\r\n\r\n" + bytes(100)
    await e.send(b"HTTP/1.1 200 OK\nContent-Length: %d\n\n" % len(body) + body)


@on_web(Status.OK)
async def one_byte_at_a_time(e: Exchange) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"0\r\n\r\n":
        e.writer.write(bytes([byte]))
        await asyncio.sleep(0)


@on_web(Status.BAD_RESPONSE, "no HTTP/1 status line")
async def http_0_9(e: Exchange) -> None:
    await e.send(JPEG)


# Content codings that nobody asked for.

served("gzip_unasked", Status.OK, gzip.compress(JPEG), Content_Encoding="gzip")
served("deflate_unasked", Status.OK, zlib.compress(JPEG), Content_Encoding="deflate")
served("gzip_announced_not_done", Status.OK, JPEG, Content_Encoding="gzip")
served("gzip_bomb", Status.TOO_LARGE, made.gzip_bomb, Content_Encoding="gzip")
served("gzip_torn", Status.TRUNCATED, gzip.compress(JPEG)[:-20], Content_Encoding="gzip")
served("gzip_broken", Status.BAD_RESPONSE, gzip.compress(JPEG)[:12] + bytes(50), Content_Encoding="gzip")
served("deflate_announced_not_done", Status.OK, JPEG, Content_Encoding="deflate")
served("gzip_twice", Status.OK, gzip.compress(gzip.compress(JPEG)), Content_Encoding="gzip, gzip")
served("gzip_of_text", Status.OK, gzip.compress(JPEG), Content_Encoding="utf-8, gzip")
served("brotli", Status.NOT_AN_IMAGE, b"\x1b\x2a" + bytes(range(100)), Content_Encoding="br")
for name in ("br", "none", "utf-8", "binary", "aws-chunked", "image/jpeg", "base64", "identity, identity", "zstd"):
    served(f"said_to_be_{re.sub('[^a-z0-9]+', '_', name)}", Status.OK, JPEG, Content_Encoding=name)

# Codes.

for code in (201, 206):
    coded(code, Status.BAD_RESPONSE)
raw("code_203", Status.OK, f"HTTP/1.1 203 Non-Authoritative Information\nContent-Length: {len(JPEG)}", JPEG)
raw("code_204", Status.BAD_RESPONSE, "HTTP/1.1 204 No Content", detail="HTTP 204")
raw("code_304", Status.HTTP_3XX, "HTTP/1.1 304 Not Modified", detail="HTTP 304")
coded(300, Status.HTTP_3XX)
for code in (400, 401, 402, 403, 418, 451):
    coded(code, Status.HTTP_4XX)
coded(404, Status.HTTP_404)
coded(410, Status.HTTP_410)
coded(429, Status.HTTP_429)
for code in (500, 503, 599):
    coded(code, Status.HTTP_5XX)
coded(429, Status.HTTP_429, "retry_after_absurd", Retry_After="999999999999999999999")
coded(503, Status.HTTP_5XX, "retry_after_half_a_day", Retry_After="43200")
coded(429, Status.HTTP_429, "retry_after_garbage", Retry_After="soon")
coded(503, Status.HTTP_5XX, "retry_after_long_ago", Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")
raw("code_999", Status.BAD_RESPONSE, "HTTP/1.1 999 Request denied")


@on_web(Status.OK)
async def broken_then_fine(e: Exchange) -> None:
    await e.answer(500 if e.times == 0 else 200, JPEG)


@on_web(Status.OK)
async def busy_then_fine(e: Exchange) -> None:
    if e.times == 0:
        await e.answer(429, b"", Retry_After="0")
    else:
        await e.answer(200, JPEG)


@on_web(Status.HTTP_404)
async def large_error_page(e: Exchange) -> None:
    await e.answer(404, bytes(1 << 20))


@on_web(Status.HTTP_404)
async def endless_error_page(e: Exchange) -> None:
    await e.raw("HTTP/1.1 404 Not Found")
    while True:
        await e.send(bytes(1 << 16))


# Redirects.

redirected("redirect_relative", Status.OK, "there.jpg")
redirected("redirect_absolute_path", Status.OK, "/there.jpg")
redirected("redirect_protocol_relative", Status.OK, f"//redirect-protocol-relative.{DOMAIN}/there.jpg")
redirected("redirect_to_another_host", Status.OK, f"http://plain-picture.{DOMAIN}/picture.jpg")
redirected("redirect_301", Status.OK, "/there.jpg", code=301)
redirected("redirect_307", Status.OK, "/there.jpg", code=307)
redirected("redirect_308", Status.OK, "/there.jpg", code=308)
redirected("redirect_in_unicode", Status.OK, "/there-é-日.jpg")
redirected("redirect_with_spaces", Status.OK, "  /there it is.jpg ")
redirected("redirect_loop", Status.TOO_MANY_REDIRECTS, "/picture.jpg")
redirected("redirect_to_nothing", Status.TOO_MANY_REDIRECTS, "")
redirected("redirect_to_link_local", Status.BLOCKED_ADDRESS, "http://169.254.1.1/x", "169.254.1.1")
redirected("redirect_to_metadata", Status.BLOCKED_ADDRESS, "http://169.254.169.254/latest/meta-data/")
redirected("redirect_to_metadata_v6", Status.BLOCKED_ADDRESS, "http://[fd00:ec2::254]/latest/")
redirected("redirect_to_v4_mapped", Status.BLOCKED_ADDRESS, "http://[::ffff:10.0.0.1]/")
redirected("redirect_to_metadata_of_oracle", Status.BLOCKED_ADDRESS, "http://192.0.0.192/opc/v1/instance/")
redirected("redirect_to_v4_compatible", Status.BLOCKED_ADDRESS, "http://[::10.0.0.1]/")
redirected("redirect_to_local_nat64", Status.BLOCKED_ADDRESS, "http://[64:ff9b:1::7f00:1]/")
redirected("redirect_to_decimal", Status.BLOCKED_ADDRESS, "http://2852039166/", "169.254.169.254")
redirected("redirect_to_hexadecimal", Status.BLOCKED_ADDRESS, "http://0xa9fea9fe/")
redirected("redirect_to_octal", Status.BLOCKED_ADDRESS, "http://0251.0376.0251.0376/")
redirected("redirect_to_short_form", Status.BLOCKED_ADDRESS, "http://10.1/")
redirected("redirect_to_private", Status.BLOCKED_ADDRESS, "https://192.168.1.1/admin")
redirected("redirect_to_v6_loopback", Status.BLOCKED_ADDRESS, "http://[::1]/")
redirected("redirect_to_file", Status.UNSUPPORTED_SCHEME, "file:///etc/passwd")
redirected("redirect_to_javascript", Status.UNSUPPORTED_SCHEME, "javascript:alert(1)")
redirected("redirect_to_ftp", Status.UNSUPPORTED_SCHEME, "ftp://plain-picture.hostile.test/picture.jpg")
redirected("redirect_to_data", Status.UNSUPPORTED_SCHEME, "data:image/png;base64,AAAA")
redirected("redirect_to_port_0", Status.INVALID_URL, "http://plain-picture.hostile.test:0/")
redirected("redirect_with_three_slashes", Status.OK, "http:///there.jpg")
redirected("redirect_to_closed_port", Status.CONNECT, "http://127.0.0.1:1/picture.jpg")
redirected("redirect_to_unknown_name", Status.DNS, "http://gone.invalid/picture.jpg")
redirected("redirect_to_tls_that_is_none", Status.TLS, f"https://plain-picture.{DOMAIN}/picture.jpg")
redirected("redirect_to_opted_out", Status.OPTED_OUT, OPTED_OUT, "redirects to")
redirected("redirect_to_closed_by_robots", Status.ROBOTS, f"http://robots-disallows.{DOMAIN}/picture.jpg")
coded(302, Status.HTTP_3XX, "redirect_without_location")


@on_web(Status.OK)
async def redirect_chain(e: Exchange) -> None:
    step = len(e.path) - len("/picture.jpg")
    if step < 4:
        await e.answer(302, b"", Location=f"{e.path}x")
    else:
        await e.answer(200, JPEG)


# What the bytes are.

served("no_bytes", Status.EMPTY, b"")
served("html_as_jpeg", Status.NOT_AN_IMAGE, b"<!DOCTYPE html><html>Sign in</html>", Content_Type="image/jpeg")
served("json", Status.NOT_AN_IMAGE, b'{"error": "no"}')
served("svg", Status.UNSUPPORTED_FORMAT, b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>')
served("pdf", Status.NOT_AN_IMAGE, b"%PDF-1.7\n")
served("one_byte", Status.NOT_AN_IMAGE, b"\xff")
served("jpeg_as_text", Status.OK, JPEG, Content_Type="text/html")
served("tiff", Status.UNSUPPORTED_FORMAT, lambda: made.saved(made.scene(), "TIFF"), "tiff")
served("bmp", Status.UNSUPPORTED_FORMAT, lambda: made.saved(made.scene(), "BMP"), "bmp")
served("ico", Status.UNSUPPORTED_FORMAT, lambda: made.saved(made.scene(32, 32), "ICO"), "ico")
served("avif", Status.UNSUPPORTED_FORMAT, b"\0\0\0\x20ftypavif" + bytes(100))
served("heic", Status.UNSUPPORTED_FORMAT, b"\0\0\0\x18ftypheic" + bytes(100), "heic")
served("jxl", Status.UNSUPPORTED_FORMAT, b"\xff\x0a" + bytes(100), "jxl")
served("jpeg_2000", Status.UNSUPPORTED_FORMAT, b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "jp2")
served("png", Status.OK, made.png)
served("webp", Status.OK, made.webp)
served("gif", Status.OK, made.gif)
served("one_pixel", Status.OK, lambda: made.jpeg(1, 1))
served("cmyk", Status.OK, lambda: made.saved(made.scene().convert("CMYK"), "JPEG"))
served("sixteen_bits", Status.OK, made.sixteen_bit_png)
served("turned", Status.OK, made.turned_jpeg)
served("progressive", Status.OK, lambda: made.saved(made.scene(), "JPEG", progressive=True))
served("polyglot", Status.OK, JPEG + b"PK\x03\x04<script>alert(1)</script>")
served("jpeg_torn", Status.TRUNCATED, lambda: made.noise_jpeg()[:50_000])
served("jpeg_torn_and_closed", Status.CORRUPT, made.jpeg_cut_and_closed)
served("jpeg_torn_behind_a_thumbnail", Status.TRUNCATED, made.torn_behind_thumbnail)
served("jpeg_ends_in_header", Status.TRUNCATED, JPEG[:100])
served("jpeg_broken_scan", Status.CORRUPT, made.jpeg_with_restart_inside)
served("jpeg_claims_gigapixels", Status.TOO_MANY_PIXELS, lambda: made.jpeg_claiming(65_000, 65_000), "65000×65000")
served("jpeg_claims_more_rows", Status.CORRUPT, lambda: made.jpeg_claiming(64, 480))
served("jpeg_claims_nothing", Status.CORRUPT, lambda: made.jpeg_claiming(0, 0))
served("jpeg_of_100_scans", Status.TOO_MANY_PIXELS, lambda: made.jpeg_of_scans(100, (9_000, 9_000)), "than 61 scans")
served("jpeg_of_markers", Status.CORRUPT, lambda: made.jpeg_of_markers(400_000), "pieces")
served("exif_garbage", Status.OK, lambda: made.jpeg_with_segment(0xE1, b"Exif\0\0" + bytes(range(200))))
served("icc_garbage", Status.OK, lambda: made.jpeg_with_segment(0xE2, b"ICC_PROFILE\0\x01\x01" + bytes(99)))
served("icc_profile", Status.OK, made.profiled_jpeg)
served("png_torn", Status.TRUNCATED, lambda: made.png()[:-40])
served("png_wrong_checksum", Status.CORRUPT, lambda: made.png()[:60] + b"\x00" + made.png()[61:], "checksum")
served("png_bomb", Status.TOO_MANY_PIXELS, made.png_bomb, "20000×20000")
served("png_claims_more_rows", Status.CORRUPT, lambda: made.png_claiming(64, 4800))
served("png_text_bomb", Status.OK, made.png_text_bomb)
served("png_of_an_iphone", Status.CORRUPT, lambda: made.png()[:8] + made.chunk(b"CgBI", bytes(4)) + made.png()[8:])
served("png_profile_bomb", Status.OK, made.sixteen_bit_png_with_profile_bomb)
served("png_too_thin_to_store", Status.TOO_MANY_PIXELS, lambda: made.thin_png(3_000), "32×96000")
served("png_in_empty_chunks", Status.CORRUPT, lambda: made.png()[:33] + made.chunk(b"teXt", b"") * 120_000, "pieces")
served("apng_of_a_million_frames", Status.TOO_MANY_FRAMES, made.apng_lie)
served("webp_torn", Status.TRUNCATED, lambda: made.webp()[:-20])
served("gif_of_100k_frames", Status.TOO_MANY_FRAMES, lambda: made.gif_of_frames(100_000), "100000 frames")
served("gif_of_no_frame", Status.CORRUPT, made.gif()[:13] + b"\x3b")
served("gif_of_tiny_blocks", Status.CORRUPT, lambda: made.gif_of_tiny_blocks(400_000), "pieces")
served("gif_torn", Status.TRUNCATED, lambda: made.gif()[:200])

# What the site says about being collected.

ruled("robots_allows", Status.OK, "User-agent: *\nDisallow: /private/\n")
ruled("robots_disallows", Status.ROBOTS, "User-agent: *\nDisallow: /\n", "disallows")
ruled("robots_disallows_a_pattern", Status.ROBOTS, "User-agent: *\nDisallow: /*.jpg$\n")
ruled("robots_allows_the_longer_rule", Status.OK, "User-agent: *\nDisallow: /\nAllow: /picture\n")
ruled("robots_names_us", Status.ROBOTS, "User-agent: *\nAllow: /\n\nUser-agent: clip-curation\nDisallow: /\n")
ruled("robots_names_another", Status.OK, "User-agent: img2dataset\nDisallow: /\n")
ruled("robots_quoted_path", Status.ROBOTS, "User-agent: *\nDisallow: /a%3cd.jpg\n", path="/a%3Cd.jpg")
ruled("robots_dot_segments", Status.ROBOTS, "User-agent: *\nDisallow: /private/\n", path="/public/../private/x.jpg")
ruled("robots_quoted_star", Status.OK, "User-agent: *\nDisallow: /%2A.jpg%24\n")
ruled("robots_with_byte_order_mark", Status.ROBOTS, "\ufeffUser-agent: *\nDisallow: /\n")
ruled("robots_of_nonsense", Status.OK, "\x00\x01\x02: /\n::\nDisallow: /\nUser-agent\n")


def robots(status: Status, detail: str = "") -> Callable[[Serve], Serve]:
    """Register the decorated function as the robots.txt of its own name."""

    def register(serve: Serve) -> Serve:
        ruled(serve.__name__, status, serve, detail)
        return serve

    return register


@robots(Status.HTTP_5XX, "robots.txt cannot be had: HTTP 500")
async def robots_broken(e: Exchange) -> None:
    await e.answer(500, b"oops")


@robots(Status.OK)
async def robots_forbidden(e: Exchange) -> None:
    await e.answer(403, b"no")


@robots(Status.TIMEOUT, "robots.txt does not come in time")
async def robots_drip(e: Exchange) -> None:
    await e.raw("HTTP/1.1 200 OK\nContent-Length: 10000")
    while True:
        await e.send(b"#")
        await asyncio.sleep(DRIP_S)


DISALLOW = b"User-agent: *\nDisallow: /\n"


@robots(Status.ROBOTS)
async def robots_broken_once(e: Exchange) -> None:
    await e.answer(*((502, b"") if e.times == 0 else (200, DISALLOW)))


@robots(Status.DISCONNECTED, "robots.txt cannot be had: the server closed")
async def robots_reset(e: Exchange) -> None:
    e.reset()


@robots(Status.ROBOTS)
async def robots_reset_once(e: Exchange) -> None:
    if e.times == 0:
        e.reset()
    else:
        await e.answer(200, DISALLOW)


@robots(Status.DISCONNECTED, "robots.txt cannot be had")
async def robots_closed(e: Exchange) -> None:
    pass


@robots(Status.TRUNCATED, "robots.txt cannot be had: the connection ended")
async def robots_torn(e: Exchange) -> None:
    await e.raw("HTTP/1.1 200 OK\nContent-Length: 5000", DISALLOW)


@robots(Status.HTTP_5XX, "robots.txt cannot be had: no HTTP/1 status line")
async def robots_garbage(e: Exchange) -> None:
    await e.raw("HTTP/2 200 OK", DISALLOW)


@robots(Status.HTTP_5XX, "robots.txt cannot be had: transfer-encoding")
async def robots_unknown_transfer_coding(e: Exchange) -> None:
    await e.raw("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked", DISALLOW)


@robots(Status.HTTP_5XX, "robots.txt cannot be had: content-encoding: br")
async def robots_brotli(e: Exchange) -> None:
    await e.answer(200, b"\x1b\x19\x00\x00" + DISALLOW, Content_Encoding="br")


@robots(Status.ROBOTS)
async def robots_said_to_be_utf_8(e: Exchange) -> None:
    await e.answer(200, DISALLOW, Content_Encoding="utf-8")


@robots(Status.ROBOTS)
async def robots_203(e: Exchange) -> None:
    await e.answer(203, DISALLOW)


@robots(Status.ROBOTS)
async def robots_huge_and_gzip(e: Exchange) -> None:
    """Of more than 500 KiB compressed, what has come counts."""
    filler = random.Random(0).randbytes(500_000).hex().encode()
    await e.answer(200, gzip.compress(DISALLOW + b"#" + filler + b"#" + filler), Content_Encoding="gzip")


@robots(Status.DNS, "robots.txt is redirected to where no server is")
async def robots_redirect_to_unknown_name(e: Exchange) -> None:
    await e.answer(302, b"", Location="http://gone.invalid/robots.txt")


@robots(Status.ROBOTS)
async def robots_huge(e: Exchange) -> None:
    """Ten megabytes, of which the first 500 KiB count."""
    await e.raw("HTTP/1.1 200 OK", b"User-agent: *\nDisallow: /\n" + b"# filler\n" * 1_000_000)


@robots(Status.OK)
async def robots_of_many_rules(e: Exchange) -> None:
    await e.answer(200, b"User-agent: *\n" + b"".join(b"Disallow: /a*b*c*d*%d\n" % i for i in range(20_000)))


@robots(Status.OK)
async def robots_redirect_loop(e: Exchange) -> None:
    await e.answer(302, b"", Location="/robots.txt")


@robots(Status.ROBOTS)
async def robots_redirected(e: Exchange) -> None:
    await e.answer(302, b"", Location=f"http://robots-disallows.{DOMAIN}/robots.txt")


@robots(Status.HTTP_5XX, "robots.txt is redirected to where no server is: 169.254.169.254")
async def robots_redirect_inside(e: Exchange) -> None:
    await e.answer(302, b"", Location="http://169.254.169.254/robots.txt")


@robots(Status.ROBOTS)
async def robots_gzip_unasked(e: Exchange) -> None:
    await e.answer(200, gzip.compress(b"User-agent: *\nDisallow: /\n"), Content_Encoding="gzip")


TAGS = {
    "noai": ("noai", Status.OPTED_OUT),
    "noai_last": ("max-image-preview:large, noai", Status.OPTED_OUT),
    "noimageai_first": ("NoImageAI, max-snippet: -1", Status.OPTED_OUT),
    "noindex_after_a_date": ("unavailable_after: Wed, 03 Dec 2035 13:09:53 GMT, noindex", Status.OPTED_OUT),
    "noimageindex": ("noarchive,noimageindex", Status.OPTED_OUT),
    "tag_none": ("none", Status.OPTED_OUT),
    "noai_for_us": ("clip-curation: noai", Status.OPTED_OUT),
    "noai_for_us_after_another": ("googlebot: nosnippet, clip-curation: noai", Status.OPTED_OUT),
    "noai_for_our_version": ("clip-curation/0.1: noai", Status.OPTED_OUT),
    "noai_after_a_semicolon": ("noarchive; noai", Status.OPTED_OUT),
    "noindex_before_a_space": ("noindex nofollow", Status.OPTED_OUT),
    "noai_in_quotes": ('"noai"', Status.OPTED_OUT),
    "noindex_for_another": ("googlebot: noindex, nofollow", Status.OK),
    "noindex_for_another_version": ("bingbot/2.0: nofollow, noindex", Status.OK),
    "noindex_for_a_number": ("360spider: nofollow, noindex", Status.OK),
    "tags_without_refusal": ("all, noarchive, max-video-preview:0", Status.OK),
}
for name, (tag, status) in TAGS.items():
    served(name, status, JPEG, X_Robots_Tag=tag)
served("tdm_reserved", Status.OPTED_OUT, JPEG, tdm_reservation="1")
served("tdm_not_reserved", Status.OK, JPEG, tdm_reservation="0")
raw("tag_on_two_lines", Status.OPTED_OUT, "HTTP/1.1 200 OK\nX-Robots-Tag: nofollow,\n\tnoai", JPEG)
raw("tag_twice", Status.OPTED_OUT, "HTTP/1.1 200 OK\nX-Robots-Tag: googlebot: noindex\nx-robots-tag: noai", JPEG)

# What the metadata says about the picture.

served("right_sha256", Status.OK, JPEG)
served("wrong_sha256", Status.HASH_MISMATCH, JPEG)
served("opted_out_by_claim", Status.OPTED_OUT, JPEG)
for name, sha256 in (
    ("right_sha256", hashlib.sha256(JPEG).hexdigest().upper()),
    ("wrong_sha256", "0" * 64),
    ("opted_out_by_claim", hashlib.sha256(made.jpeg(seed=7)).hexdigest()),
):
    BEHAVIOURS[name] = replace(BEHAVIOURS[name], claimed_sha256=sha256)
served("opted_out_url", Status.OPTED_OUT, JPEG)
served("opted_out_host", Status.OPTED_OUT, JPEG)
served("opted_out_sha256", Status.OPTED_OUT, lambda: made.jpeg(seed=7), "sha256")

# URLs.

asked("url_with_password", Status.OK, f"http://user:secret@url-with-password.{DOMAIN}/picture.jpg")
asked("url_with_spaces", Status.OK, f" http://url-with-spaces.{DOMAIN}/a picture.jpg\t")
asked("url_in_unicode", Status.OK, f"http://url-in-unicode.{DOMAIN}/日本/é.jpg?q=ü#fragment")
asked("url_half_quoted", Status.OK, f"http://url-half-quoted.{DOMAIN}/100%/a%20b%2.jpg")
asked("url_with_dots", Status.OK, f"http://url-with-dots.{DOMAIN}/a/../../b/./c.jpg")
asked("url_in_capitals", Status.OK, f"HTTP://URL-IN-CAPITALS.{DOMAIN.upper()}/PICTURE.JPG")
asked("url_with_trailing_dot", Status.OK, f"http://url-with-trailing-dot.{DOMAIN}./picture.jpg")
asked("url_with_query_only", Status.OK, f"http://url-with-query-only.{DOMAIN}?picture=1")
asked("url_with_line_break", Status.OK, f"http://url-with-line-break.{DOMAIN}/a\r\nX-Injected: 1.jpg")
asked("xn--bcher-kva", Status.OK, f"http://bücher.{DOMAIN}/picture.jpg")
asked("url_without_host", Status.INVALID_URL, "http:///picture.jpg")
asked("url_without_scheme", Status.INVALID_URL, "www.hostile.test/picture.jpg")
asked("url_of_slashes", Status.INVALID_URL, "//hostile.test/picture.jpg")
asked("url_empty", Status.INVALID_URL, "")
asked("url_port_0", Status.INVALID_URL, f"http://plain-picture.{DOMAIN}:0/picture.jpg")
asked("url_port_65536", Status.INVALID_URL, f"http://plain-picture.{DOMAIN}:65536/picture.jpg")
asked("url_port_in_words", Status.INVALID_URL, f"http://plain-picture.{DOMAIN}:http/picture.jpg")
asked("url_broken_brackets", Status.INVALID_URL, "http://[::1/picture.jpg")
asked("url_of_60_kilobytes", Status.INVALID_URL, f"http://plain-picture.{DOMAIN}/{'a' * 60_000}.jpg")
asked("url_ftp", Status.UNSUPPORTED_SCHEME, "ftp://hostile.test/picture.jpg")
asked("url_file", Status.UNSUPPORTED_SCHEME, "file:///etc/hostname")
asked("url_data", Status.UNSUPPORTED_SCHEME, f"data:image/png;base64,{'A' * 60_000}")
asked("url_javascript", Status.UNSUPPORTED_SCHEME, "javascript:alert(1)")
asked("url_private", Status.BLOCKED_ADDRESS, "http://10.0.0.1/picture.jpg")
asked("url_unspecified", Status.BLOCKED_ADDRESS, "http://0.0.0.0/picture.jpg")
asked("url_v6_loopback", Status.BLOCKED_ADDRESS, "http://[::1]/picture.jpg")
asked("url_v6_with_zone", Status.INVALID_URL, "http://[fe80::1%25eth0]/picture.jpg")
asked("url_nat64", Status.BLOCKED_ADDRESS, "http://[64:ff9b::a00:1]/picture.jpg")
asked("url_6to4", Status.BLOCKED_ADDRESS, "http://[2002:a00:1::]/picture.jpg")
asked("url_multicast", Status.BLOCKED_ADDRESS, "http://224.0.0.1/picture.jpg")
asked("url_carrier_grade", Status.BLOCKED_ADDRESS, "http://100.64.0.1/picture.jpg")
asked("name_that_is_none", Status.DNS, "http://nowhere.invalid/picture.jpg")
asked("name_too_long", Status.DNS, f"http://{'a' * 70}.test/picture.jpg")
asked("name_of_private", Status.BLOCKED_ADDRESS, "http://private.fake/picture.jpg", "10.0.0.7")
asked("name_of_link_local", Status.BLOCKED_ADDRESS, "http://linklocal.fake/picture.jpg")
asked("name_not_now", Status.DNS, "http://notnow.fake/picture.jpg")
asked("name_of_closed_port", Status.CONNECT, "http://127.0.0.1:1/picture.jpg")
FAKE_NAMES = {"private.fake": ["10.0.0.7", "192.168.0.7"], "linklocal.fake": ["fe80::1"], "notnow.fake": None}
"""Answers of the resolver that tests put in the place of the system's; None is a temporary failure."""
