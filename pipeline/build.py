"""Configuration → pipeline. Reads as the diagram: sources, two threads of stages, sinks."""

from __future__ import annotations

import logging
import os
import platform
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from engines import load_classifier, load_detector
from engines.select import cores
from pipeline.errors import FerError, SourceError, StageError
from pipeline.files import event_files, inputs_of, output_files
from pipeline.flow.graph import Pipeline, RunResult
from pipeline.flow.ledger import Ledger
from pipeline.sinks.events import EventsSink
from pipeline.sinks.images import ImagesSink
from pipeline.sinks.outputs import check_output
from pipeline.sinks.progress import ProgressSink
from pipeline.sinks.report import ReportSink, check_report
from pipeline.sinks.summary import SummarySink
from pipeline.sinks.video import VideoSink
from pipeline.sinks.window import WindowSink, has_display
from pipeline.sources.stride import Strided
from pipeline.sources.uri import Parsed, open_source, parse_all, unique_names
from pipeline.stages.classify import Classify
from pipeline.stages.detect import Detect
from pipeline.stages.privacy import SUSPICION, Privacy
from pipeline.stages.smooth import Smooth
from pipeline.stages.track import Track

if TYPE_CHECKING:
    from engines.classifier import Classifier
    from engines.detector import Detector
    from pipeline.config import Config
    from pipeline.flow.ledger import LedgerSnapshot
    from pipeline.flow.protocols import Sink, Source, Stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What is wanted of one run, beside the settings."""

    output: str | None = None
    """Annotated video or picture; a folder or a pattern with {source} for several sources."""
    events: str | None = None
    """Rows, .jsonl, .csv or .parquet; "-" for standard output."""
    report: str | None = None
    """A page about the run, .html; one for all sources."""
    show: bool = False
    """A window with the annotated picture."""
    start: float | None = None
    """Seconds from the first frame."""
    end: float | None = None
    max_frames: int | None = None
    realtime: bool = False
    overwrite: bool = False
    unsafe_pickle: bool = False
    quiet: bool = True
    """No progress bar."""
    interactive: bool = False
    """Called by a person: a live source without outputs gets a window, or rows on standard output where no display is."""
    models: tuple[Detector, Classifier] | None = None
    """Loaded by the caller, to share them between runs one after another (a first inference takes 0.9 s); the settings of models
    are left aside then."""
    sinks: tuple[Sink, ...] = field(default=())
    """More sinks, of the caller's own."""


class Run:
    """One run: `run()` once; `stop()` and `cancel()` from any thread or signal handler."""

    def __init__(self, sources: Sequence[Source], stages: Sequence[Sequence[Stage]], sinks: Sequence[Sink], config: Config,
                 ledger: Ledger | None = None, models: Sequence[Detector | Classifier] = ()) -> None:  # fmt: skip
        """`models` are closed at the end: a graph of threads and queues waits for the garbage collector, and so would they."""
        self.summary: dict[str, Any] = {}
        self._models = models
        self._sinks = sinks
        self._result: RunResult | None = None
        self._ledger: LedgerSnapshot | None = None
        self._pipeline = Pipeline(
            sources, stages, sinks, on_ledger=self._settled, ledger=ledger,
            max_batch=config.max_batch or 1, max_wait_s=config.live.max_wait_s,
            live_lane=config.live.lane, max_age_s=config.live.max_age_s, connect_timeout_s=config.live.connect_timeout_s,
        )  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Blocks until everything is written; the summary as plain values. Raises the first error (FerError)."""
        try:
            self._result = self._pipeline.run()
            for name, why in self._result.detached.items():
                log.warning("%s: %s; the run went on without it", name, why)
        finally:
            for model in self._models:
                model.close()
            self.summary = self._summary_sink.result(self._ledger)
            failed = [error for error in map(self._finish, self._sinks) if error is not None]
        if failed:
            raise failed[0]
        return self.summary

    def _finish(self, sink: Sink) -> FerError | None:
        """The last row, the page. One that cannot be written takes no other with it, nor the error that ended the run."""
        try:
            if isinstance(sink, EventsSink):
                sink.finish({"ledger": self.summary["sources"]})
            elif isinstance(sink, ReportSink):
                sink.finish({"ledger": self.summary["sources"], "seconds": self.summary["seconds"]})
        except Exception as error:
            return error if isinstance(error, FerError) else StageError(sink.name, error)
        return None

    def stop(self) -> None:
        """End the sources; what was taken is finished."""
        self._pipeline.stop()

    def cancel(self) -> None:
        """End at once."""
        self._pipeline.cancel()

    def failures(self) -> list[FerError]:
        """The error of every source that failed."""
        errors = self._result.errors.values() if self._result else ()
        return [error if isinstance(error, FerError) else _source_error(error) for error in errors]

    def print_summary(self) -> None:
        """The table for people, on standard error: standard output may be taken by rows."""
        from rich.console import Console

        # Off a terminal nothing is broken into lines: whoever reads it looks for whole paths.
        self._summary_sink.print(Console(stderr=True, width=None if sys.stderr.isatty() else 1000))

    @property
    def _summary_sink(self) -> SummarySink:
        return next(sink for sink in self._sinks if isinstance(sink, SummarySink))

    def _settled(self, ledger: LedgerSnapshot) -> None:
        self._ledger = ledger


def build(config: Config, texts: Sequence[str], options: Options) -> Run:
    """Everything is checked before anything is opened; UsageError for what cannot be."""
    parsed = parse_all(texts)
    names = unique_names([one.name for one in parsed])
    if options.interactive and not (options.output or options.events or options.report or options.show) and any(one.live for one in parsed):
        options = replace(options, show=True) if has_display() else replace(options, events="-")
    ledger = Ledger()
    if options.show and not has_display():
        log.warning("--show: no display is set (DISPLAY, WAYLAND_DISPLAY); the run goes on without a window")
        options = replace(options, show=False)
    sources = [_source(one, name, config, options, ledger) for one, name in zip(parsed, names, strict=True)]
    named = dict(zip(names, parsed, strict=True))
    events = event_files(options.events, named, options.overwrite)
    outputs = output_files(options.output, named, options.overwrite)
    if options.report is not None:
        check_report(options.report)
        check_output(options.report, inputs=inputs_of(named), overwrite=options.overwrite, what="--report")
    config = _batched(_watchful(config), live=options.realtime or any(one.live for one in parsed))
    detector, classifier = options.models or _models(config, options)
    info = _info(config, detector, classifier)

    later: list[Run] = []  # the window stops the run that it is part of
    stages = [
        [_detect(config, detector, stills=all(one.kind == "images" for one in parsed))],
        [_track(config, detector), _classify(config, classifier), _smooth(config, classifier), *_privacy(config)],
    ]
    sinks: list[Sink] = [
        *(EventsSink(path, info=info, source=name, overwrite=options.overwrite) for name, path in events),
        *(_annotated(path, name, config, options, named) for name, path in outputs),
        *([ReportSink(options.report, info=info, overwrite=options.overwrite)] if options.report else []),
        *([WindowSink(top_k=config.video.top_k, on_close=lambda: later[0].stop())] if options.show else []),
        *([] if options.quiet else [ProgressSink(len(sources))]),
        *options.sinks,
        SummarySink(),
    ]
    later.append(Run(sources, stages, sinks, config, ledger, () if options.models else (detector, classifier)))
    return later[0]


def _source_error(error: BaseException) -> SourceError:
    wrapped = SourceError(f"a source failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _source(parsed: Parsed, name: str, config: Config, options: Options, ledger: Ledger) -> Source:
    source = open_source(
        parsed,
        name=name,
        live=config.live,
        decode=config.decode.device,
        realtime=options.realtime,
        start_s=options.start,
        end_s=options.end,
        max_frames=options.max_frames,
    )
    return source if config.stride == 1 else Strided(source, config.stride, ledger)


def _detect(config: Config, detector: Detector, stills: bool) -> Detect:
    c = config.detect
    return Detect(
        detector, interval=c.interval, floor=min(c.floor, detector.conf), max_faces=c.max_faces,
        suspicion=SUSPICION if config.privacy == "blur" else None, keep_up=c.keep_up,
        wait_s=config.live.max_wait_s if config.max_batch != 1 else 0.0, stills=stills,
    )  # fmt: skip


def _track(config: Config, detector: Detector) -> Track:
    c = config.track
    lookahead = c.lookahead
    if config.detect.interval > 1:  # boxes between looks need the next one, and a new face as many as give it its id
        lookahead = max(lookahead, config.detect.interval * (c.mature - 1) + 1)
    return Track(
        conf=detector.conf, lost_s=c.lost_s, faint_s=c.faint_s, mature=c.mature, iou=c.iou, lookahead=lookahead, min_size=c.min_size
    )


def _classify(config: Config, classifier: Classifier) -> Classify:
    c = config.classify
    return Classify(classifier, max_faces=c.max_faces, max_age_s=c.max_age_s, min_quality=c.min_quality)


def _smooth(config: Config, classifier: Classifier) -> Smooth:
    c = config.smooth
    least = classifier.contract.min_confidence if c.min_confidence is None else c.min_confidence
    return Smooth(tau_s=c.tau_s, margin=c.margin, dwell_s=c.dwell_s, min_confidence=least, hold_s=c.hold_s)


def _privacy(config: Config) -> list[Stage]:
    return [Privacy(lost_s=config.track.lost_s)] if config.privacy == "blur" else []


def _watchful(config: Config) -> Config:
    """Under privacy every frame is looked at: a face that shows only in one that was passed over could not be hidden."""
    if config.privacy != "blur":
        return config
    if config.detect.interval > 1:
        log.warning("--privacy blur looks at every frame; the detect interval of %d is left aside", config.detect.interval)
    return config.model_copy(update={"detect": config.detect.model_copy(update={"interval": 1, "keep_up": False})})


def _batched(config: Config, live: bool) -> Config:
    """How many frames go through the detector together, where the configuration leaves that open.

    On CPU cores one thread per picture is cheapest, and files always have the next picture at hand: four for each core, since at the end of
    a batch a core is idle (8 instead of 4 frames for two cores: 1.05 times as fast at 720p, 1.08 at 360p), and eight for small inputs (1.07
    times at 320 pixels). A camera has not: its one frame gets all cores, since it is waited for.
    """
    cuda = "cuda" in config.device
    parallel = config.detect.parallel or (1 if live or cuda else min(cores(), config.detect.threads or 4, 4))
    ahead = max(4 if config.detect.imgsz > 320 else 8, 2 * config.detect.interval)
    max_batch = config.max_batch or (16 if cuda else parallel if live else parallel * ahead)
    return config.model_copy(update={"max_batch": max_batch, "detect": config.detect.model_copy(update={"parallel": parallel})})


def _models(config: Config, options: Options) -> tuple[Detector, Classifier]:
    on = {"backend": config.backend, "device": config.device, "rebuild": config.rebuild}
    detector = load_detector(
        _chosen(config.detect.model),
        conf=config.detect.conf,
        imgsz=config.detect.imgsz,
        threads=config.detect.threads,
        requests=config.detect.parallel or 1,
        unsafe_pickle=options.unsafe_pickle,
        **on,
    )
    return detector, load_classifier(_chosen(config.classify.model), head=config.classify.head, threads=config.classify.threads, **on)


def _chosen(model: str) -> str | None:
    return None if model == "auto" else model


def _annotated(path: str, name: str | None, config: Config, options: Options, named: dict[str, Parsed]) -> Sink:
    """The annotated video of source `name`, or the pictures of all (None)."""
    shared: dict[str, Any] = {"top_k": config.video.top_k, "purpose": config.purpose, "overwrite": options.overwrite}
    if name is None:
        return ImagesSink(path, inputs=inputs_of(named), **shared)
    return VideoSink(path, name, codec=config.video.codec, preset=config.video.preset, crf=config.video.crf, **shared)


def _info(config: Config, detector: Detector, classifier: Classifier) -> dict[str, Any]:
    """What the first row says of the run."""
    return {
        "run_id": uuid.uuid4().hex,
        "purpose": config.purpose,
        "fer_stream": version("fer-stream"),
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()},
        "models": {
            "detector": {"name": detector.name, "sha256": detector.sha256, "backend": detector.backend, "conf": detector.conf},
            "classifier": {
                "name": classifier.name, "sha256": classifier.sha256, "backend": classifier.backend, "head": config.classify.head,
                "contract": asdict(classifier.contract),
            },
        },
        "settings": config.model_dump(),
    }  # fmt: skip
