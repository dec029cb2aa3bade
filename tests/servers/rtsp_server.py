"""A real RTSP server (GStreamer's), run by the system's Python, because `gi` belongs to it. Prints READY when it listens.

/live    a test picture, H.264, key frame every second, made for each client, paced
/file    the H.264 MP4 given by --clip, paced, not re-encoded
/silent  answers and plays, but sends no picture after the first second
With --user and --password all of them answer 401 to others.
"""

import argparse
import ctypes
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

LIVE = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width={width},height={height},framerate={rate}/1 ! {extra}"
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max={rate} ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)
FILE = "( filesrc location={clip} ! qtdemux ! h264parse config-interval=1 ! rtph264pay name=pay0 pt=96 )"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clip")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--rate", type=int, default=25)
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--auth", choices=("basic", "digest"), default="digest")
    options = parser.parse_args()
    # A test run that dies takes its servers along, frozen ones too: 1 is PR_SET_PDEATHSIG.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    server.set_backlog(50)
    mounts = server.get_mount_points()
    width, height = options.size.split("x")

    def add(path: str, launch: str) -> GstRtspServer.RTSPMediaFactory:
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(launch)
        # A pipeline for each client: shared ones crash this server when clients leave and come at once (6 s with three clients).
        factory.set_shared(False)
        mounts.add_factory(path, factory)
        return factory

    live = LIVE.format(width=width, height=height, rate=options.rate, extra="")
    factories = [
        add("/live", live),
        # The valve is the client's view of a camera whose sensor hangs: the session stays, RTCP goes on, no picture comes.
        add("/silent", LIVE.format(width=width, height=height, rate=options.rate, extra="valve name=tap ! ")),
    ]
    factories[1].connect("media-configure", _shut_after_a_second)
    if options.clip:
        factories.append(add("/file", FILE.format(clip=options.clip)))
    if options.user:
        _protect(server, options, factories)
    server.attach(None)
    print("READY", flush=True)
    GLib.MainLoop().run()


def _shut_after_a_second(_: object, media: "GstRtspServer.RTSPMedia") -> None:
    tap = media.get_element().get_by_name("tap")
    media.connect("new-state", lambda _, state: state == Gst.State.PLAYING and GLib.timeout_add(1000, tap.set_property, "drop", True))


def _protect(server: "GstRtspServer.RTSPServer", options: argparse.Namespace, factories: list) -> None:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if options.auth == "basic":
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(options.user, options.password), token)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(options.user, options.password, token)
    server.set_auth(auth)
    for factory in factories:
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("viewer", "media.factory.access", True)
        permissions.add_permission_for_role("viewer", "media.factory.construct", True)
        factory.set_permissions(permissions)


if __name__ == "__main__":
    sys.exit(main())
