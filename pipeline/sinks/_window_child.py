"""The window's own process: pictures come on standard input, it ends when the window is closed or the input ends.

Run by path, not imported, and it imports nothing of the project: `cv2.imshow` hangs where `av` was imported before, and
Qt aborts the whole process where no display is. Each picture: 12 bytes of sizes (name, height, width), name, BGR pixels.
"""

import os
import sys
import threading

import cv2
import numpy as np

_ESC = 27


def read(newest: dict, changed: threading.Event) -> None:
    """Keep the newest picture of each source until the input ends."""
    stream = sys.stdin.buffer
    while head := stream.read(12):
        length, height, width = (int(value) for value in np.frombuffer(head, "<u4"))
        name = stream.read(length).decode()
        pixels = stream.read(height * width * 3)
        if len(pixels) < height * width * 3:
            break
        newest[name] = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        changed.set()
    newest[None] = True


def main() -> None:
    newest: dict = {}
    shown: set = set()
    visible: set = set()  # a slow display has not mapped a window yet when it is first asked for: that is not closed by a person
    changed = threading.Event()
    threading.Thread(target=read, args=(newest, changed), daemon=True).start()
    while None not in newest:
        changed.wait(0.02)
        changed.clear()
        for name, picture in list(newest.items()):
            if name is None:
                continue
            if name not in shown:
                cv2.namedWindow(name, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
                scale = min(1.0, 1280 / picture.shape[1], 800 / picture.shape[0])
                cv2.resizeWindow(name, int(picture.shape[1] * scale), int(picture.shape[0] * scale))
                shown.add(name)
            cv2.imshow(name, picture)
        if shown:
            key = cv2.waitKey(10) & 0xFF
            now = {name for name in shown if cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) >= 1}
            if key in (_ESC, ord("q")) or visible - now:
                break
            visible = now


if __name__ == "__main__":
    main()
    cv2.destroyAllWindows()
    os._exit(0)  # an ordinary end aborts (exit code -6) while the reading thread waits in standard input
