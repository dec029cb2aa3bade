"""Passwords out of everything that people see. Standard library only.

PyAV's exceptions hold the URL they were given, password included (measured: `str(error)` of a refused RTSP connection shows
`rtsp://user:secret@…`), cheap cameras take passwords as query values, and XMEye ones inside the path. So names, log lines,
error sentences and rows go through here; where a hint is ambiguous, too much is removed rather than too little.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_SCHEME = r"([a-z][a-z0-9+.-]*:|(?:rtsp|http)s?(?=//))"  # without its colon only where nothing else can be meant
_URL = re.compile(rf"(?i)\b{_SCHEME}//([^\s'\"<>]*)")
_WHOLE_URL = re.compile(rf"(?is)\A{_SCHEME}//(.*)\Z")
_KEYS = (
    r"[a-z_-]*(?:password|passwd|passwort|passcode|passphrase|pass|pwd|psw|token|secret|signature|apikey)"
    r"|pw|auth|authorization|api_key|key|sig"
)
_SECRET_VALUE = re.compile(rf"(?i)(?<![a-z0-9])({_KEYS})=([^&#;/?\s'\"<>]+)")


def redact(url: str) -> str:
    """A URL without user and password, values of keys such as `password=`, `token=` as `***`. What is no URL is unchanged."""
    return _WHOLE_URL.sub(_clean, url)


def redact_text(text: str, url: str = "") -> str:
    """Any text with the secrets of `url` removed, wherever and however often they stand in it, and of all other URLs too."""
    if url:
        text = text.replace(url, redact(url))
    text = _URL.sub(_clean, text)
    for secret in _secrets(url):
        text = text.replace(secret, "***")
    return text


def unique_names(names: list[str]) -> list[str]:
    """Redacted, and a second "rtsp://host/a" becomes "rtsp://host/a#2": rows and the ledger tell sources apart by name."""
    clean, taken, result = [redact(name) for name in names], set(), []
    for name in clean:
        candidate, number = name, 2
        while candidate in taken or (number > 2 and candidate in clean):
            candidate, number = f"{name}#{number}", number + 1
        taken.add(candidate)
        result.append(candidate)
    return result


def _clean(match: re.Match[str]) -> str:
    return f"{match[1]}//{_SECRET_VALUE.sub(_hidden, _without_user(match[2]))}"


def _hidden(match: re.Match[str]) -> str:
    return f"{match[1]}=***"


def _without_user(rest: str) -> str:
    """What follows "://". As FFmpeg reads it, the authority ends at the first of / ? # and its last @ ends the password; a
    password with an unescaped slash shows as a port that is no number, and then the last @ of all ends it."""
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    authority = rest[:end]
    if "@" in authority:
        return rest[authority.rindex("@") + 1 :]
    port = re.sub(r"^\[[^\]]*\]", "", authority).partition(":")[2]
    if port and not port.isdigit() and "@" in rest:
        return rest[rest.rindex("@") + 1 :]
    return rest


def _secrets(url: str) -> list[str]:
    """The parts worth hiding when they stand alone in a text; very short ones would garble it, so they only go with the URL."""
    match = _WHOLE_URL.match(url)
    if match is None:
        return []
    user = match[2][: len(match[2]) - len(_without_user(match[2]))].rstrip("@")
    password = user.partition(":")[2]
    found = {user if ":" in user else "", password, *(value for _, value in _SECRET_VALUE.findall(match[2]))}
    found |= {unquote(secret) for secret in found}
    return sorted((secret for secret in found if len(secret) >= 4), key=len, reverse=True)
