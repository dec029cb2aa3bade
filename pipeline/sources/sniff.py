"""What a file is, by its first bytes rather than by its name. Standard library only."""

from __future__ import annotations

import struct
from pathlib import Path

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Names that promise a picture; GIF is not among them, it is read as a video."""
_STREAM_OF_PICTURES = frozenset({".mjpeg", ".mjpg"})
"""Raw MJPEG begins like one JPEG and is a video."""
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".flv", ".ogv", ".gif",
    ".wmv", ".asf", ".3gp", ".3g2", ".mxf", ".h264", ".264", ".hevc", ".265", ".m2v", ".mjpeg", ".mjpg", ".ivf", ".y4m", ".dv", ".nut",
})  # fmt: skip
"""Names that promise a video, for patterns; a file that is named outright is a video whatever it is called."""
_HEAD = 256
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})


def is_picture(path: Path) -> bool:
    """True for JPEG, PNG, WebP (not animated), BMP and TIFF by content, or by name where the content is unknown.

    A zero-byte or damaged "a.jpg" is a (broken) picture; a video that is called "a.jpg" is a video. An unreadable file goes by
    its name: whoever opens it says what is wrong.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        head = b""
    suffix = path.suffix.lower()
    if _picture_head(head):
        return suffix not in _STREAM_OF_PICTURES
    return suffix in PICTURE_SUFFIXES and not _video_head(head)


def is_video(path: Path) -> bool:
    """By content, or by name; False for whatever else a pattern may match."""
    try:
        with path.open("rb") as file:
            return _video_head(file.read(_HEAD)) or path.suffix.lower() in VIDEO_SUFFIXES
    except OSError:
        return path.suffix.lower() in VIDEO_SUFFIXES


def is_animated_webp(path: Path) -> bool:
    """By content; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return _animated_webp(file.read(_HEAD))
    except OSError:
        return False


def _animated_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 2)


def _animated_png(head: bytes) -> bool:
    """acTL stands before the first pixels, behind IHDR or after a few small chunks (FFmpeg writes pHYs first)."""
    return head.startswith(b"\x89PNG\r\n\x1a\n") and b"acTL" in head.partition(b"IDAT")[0]


def _picture_head(head: bytes) -> bool:
    if _animated_png(head):
        return False
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*")):
        return True
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return not _animated_webp(head)
    # "BM" alone also begins texts, so the reserved zeros and the size of the second header have to fit.
    return head[:2] == b"BM" and len(head) >= 18 and head[6:10] == bytes(4) and struct.unpack("<I", head[14:18])[0] in _BMP_HEADERS


def _video_head(head: bytes) -> bool:
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"moof", b"wide", b"free")
        or head.startswith((b"\x1aE\xdf\xa3", b"GIF8", b"OggS", b"FLV\x01"))
        or (head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WEBP"))
        or _animated_png(head)
    )


def is_cut_off(path: Path) -> bool:
    """Whether an MP4, MOV, MKV, WebM or AVI ends before it says that it does: FFmpeg reads such a file to its end without a word.
    False where it cannot be read."""
    if not path.is_file():
        return False
    try:
        if boxes := mp4_boxes(path):
            return boxes[1]
        with path.open("rb") as file:
            head, size = file.read(_HEAD), path.stat().st_size
    except OSError:
        return False
    end = 0
    if head.startswith(b"\x1aE\xdf\xa3"):
        end = _segment_end(head)
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        end = 8 + int(struct.unpack("<I", head[4:8])[0])
    return end > size


def _segment_end(head: bytes) -> int:
    """Where the segment of an MKV or WebM ends, bytes; 0 where that was not known when it was written (a live recording)."""
    size, segment = _ebml_size(head, 4)
    if size is None or head[segment + size : segment + size + 4] != b"\x18S\x80g":
        return 0
    length, start = _ebml_size(head, segment + size + 4)
    return 0 if length is None else start + length


def _ebml_size(head: bytes, at: int) -> tuple[int | None, int]:
    """The size that an element's header names, None where it is unknown or not there, and where the element's content begins."""
    if at >= len(head) or not head[at]:
        return None, at
    width = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), at + width


def mp4_boxes(path: Path) -> tuple[list[str], bool] | None:
    """Names of the outermost boxes of an MP4/MOV file, and whether the last one is cut off; None where it is not such a file.

    FFmpeg reads a file that was cut off behind its index without a word and ends early (measured: 133 of 288 frames, no error),
    and says the same "Invalid data" for a missing index as for a text file; this tells them apart.
    """
    names: list[str] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while position + 8 <= size and len(names) < 100_000:
            file.seek(position)
            header = file.read(16)
            length, kind = struct.unpack(">I4s", header[:8])
            if not all(32 <= byte < 127 or byte == 0xA9 for byte in kind):
                break
            if length == 1 and len(header) == 16:
                length = struct.unpack(">Q", header[8:])[0]
            elif length == 0:
                length = size - position
            if length < 8:
                break
            names.append(kind.decode("latin-1"))
            position += length
    if not names or names[0] not in ("ftyp", "moov", "mdat", "wide", "free", "skip", "styp", "moof"):
        return None
    return names, position > size
