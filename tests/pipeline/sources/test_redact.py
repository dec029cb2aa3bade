"""No password is shown anywhere."""

import pytest

from pipeline.sources.redact import redact, redact_text, unique_names


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:secret@host/stream", "rtsp://host/stream"),
        ("rtsp://user@host:8554/a", "rtsp://host:8554/a"),
        ("RTSP://user:secret@host", "RTSP://host"),
        ("rtsp://user:se@cr@et@host/a", "rtsp://host/a"),
        ("rtsp://user:sec/ret@host/a", "rtsp://host/a"),
        ("rtsp://user:se#c?ret@host/a", "rtsp://host/a"),
        ("rtsp://user:se cret\n'\"@host/a", "rtsp://host/a"),
        ("rtsp://user:s%40cret@[::1]:8554/a", "rtsp://[::1]:8554/a"),
        ("rtsp://[::1]:8554/a@b", "rtsp://[::1]:8554/a@b"),
        ("rtsp://host:8554/main@1", "rtsp://host:8554/main@1"),
        ("rtsp://host/main@1", "rtsp://host/main@1"),
        ("http://host/video.cgi?user=admin&pwd=secret&res=2", "http://host/video.cgi?user=admin&pwd=***&res=2"),
        ("http://host/v?access_token=secret#x", "http://host/v?access_token=***#x"),
        ("http://host/v?user=a&userpwd=secret", "http://host/v?user=a&userpwd=***"),
        ("rtsp://host:554/user=admin_password=secret_channel=1.sdp", "rtsp://host:554/user=admin_password=***"),
        ("https://host/a/b?x=1", "https://host/a/b?x=1"),
        ("rtsp//user:secret@host/a", "rtsp//host/a"),
        ("day//clip@home.mp4", "day//clip@home.mp4"),
        ("clip@home:1.mp4", "clip@home:1.mp4"),
        ("/dev/video0", "/dev/video0"),
        ("", ""),
    ],
)
def test_a_url_shows_neither_user_nor_password(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_a_text_is_cleaned_of_the_url_of_its_parts_and_of_other_urls() -> None:
    url = "rtsp://user:s%40cret9@host/a"
    text = f"open '{url}' failed; auth user:s%40cret9, s@cret9; moved to http://user:other@b/c?token=x1"
    assert redact_text(text, url) == "open 'rtsp://host/a' failed; auth ***, ***; moved to http://b/c?token=***"


def test_a_text_with_a_url_whose_password_has_spaces_is_cleaned() -> None:
    url = "rtsp://user:my secret@host/a"
    assert "secret" not in redact_text(f"cannot open {url}: refused", url)


def test_names_are_redacted_and_unique() -> None:
    names = unique_names(["rtsp://a:b@h/1", "rtsp://c:d@h/1", "x.mp4", "x.mp4", "x.mp4#2", "x.mp4"])
    assert names == ["rtsp://h/1", "rtsp://h/1#2", "x.mp4", "x.mp4#3", "x.mp4#2", "x.mp4#4"]
    assert len(set(names)) == len(names)
