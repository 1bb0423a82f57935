"""All tracks of a clip but its pictures: sound, subtitles, data, attachments, covers, and their metadata.

What a container does not take is named, never dropped in silence.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.format import ContainerFormat
from av.format import Flags as FormatFlags
from av.stream import Discard, Disposition

from pipelines.media.video.clip import File
from pipelines.media.video.containers import Container
from pipelines.media.video.damage import Damage, main_track, opened, packets

KINDS = {
    "audio": "sound",
    "subtitle": "subtitle",
    "data": "data",
    "attachment": "attachment",
    "video": "picture",
}
MARKS = (
    Disposition.forced,
    Disposition.hearing_impaired,
    Disposition.visual_impaired,
    Disposition.comment,
    Disposition.captions,
    Disposition.attached_pic,
)
"""What players choose tracks by."""
FRAMED = frozenset({"mp3", "mp2", "ac3", "aac", "flac"})
"""Codecs of sound of which each packet is a frame as long as the others."""
NOT_SAID = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "alpha_mode", "rotate"}
)
"""Metadata that tell of the file as it was written."""


class Tracks:
    """Those of a source that go into a container, once `add_to` has added them."""

    def __init__(self, source: File, original: InputContainer, container: Container, template: Any) -> None:
        self.source, self.original, self.container = source, original, container
        self.lost: list[str] = []
        self.copies: dict[int, Any] = {}
        self.dropped: set[int] = set()
        self.timecode = ""
        self._last: dict[int, int] = {}
        self._begun: set[int] = set()
        self._template = template
        self._trials: dict[int, _Trial] = {}
        self._steps: dict[int, int] = {}
        self._left_out: Counter[int] = Counter()

    def add_to(self, out: OutputContainer, video: Callable[[], Any]) -> Any:
        """Add all tracks in the source's order, that of the pictures by `video`, which gives it back."""
        main, added = main_track(self.original), None
        out.metadata.update(_told(self.original.metadata))
        for stream in self.original.streams:
            if stream.index == main.index:
                added = video()
            elif is_timecode(stream) and self.container.clock:
                self.timecode = stream.metadata["timecode"]
            elif stream.discard != Discard.all:  # such as the text of chapters, which is written anew
                self._add(out, stream)
        if self.timecode and added:
            added.metadata.setdefault("timecode", self.timecode)
        if chapters := self.original.chapters():
            out.set_chapters(chapters)
        return added

    def _add(self, out: OutputContainer, stream: Any) -> None:
        if stream.disposition & Disposition.attached_pic and self.container.muxer == "matroska":
            self._attach(out, stream)
        elif self._takes(stream):
            self.copies[stream.index] = _copied(out, stream, self.container)
        else:
            self.dropped.add(stream.index)
            self.lost.append(f"its {named(stream)} is not kept: {_endings(self.container)} cannot hold it")

    def _takes(self, stream: Any) -> bool:
        """Whether the container takes such a track beside the pictures and those that it has: it is tried."""
        if self.container.raw:
            return False
        try:
            with av.open(io.BytesIO(), "w", format=self.container.muxer) as trial:
                trial.add_stream_from_template(self._template, opaque=True)
                for one in (*(self.original.streams[index] for index in self.copies), stream):
                    _copied(trial, one, self.container)
                trial.start_encoding()
        except (FFmpegError, ValueError, NotImplementedError):
            return False
        return True

    def _attach(self, out: OutputContainer, stream: Any) -> None:
        """A cover, which is a file among the attachments."""
        with opened(self.source) as again:
            picture = next((bytes(one) for one in again.demux(again.streams[stream.index]) if one.size), b"")
        kind = stream.codec_context.codec.canonical_name if stream.codec_context else "mjpeg"
        ending, mime = {"png": ("png", "image/png")}.get(kind, ("jpg", "image/jpeg"))
        tags = {key.lower(): value for key, value in stream.metadata.items()}
        out.add_attachment(tags.get("filename", f"cover.{ending}"), tags.get("mimetype", mime), picture)

    def packets(self) -> Iterator[av.Packet]:
        """Those of the tracks that are copied, each in order."""
        streams = [self.original.streams[index] for index in self.copies]
        timed = {stream.index for stream in streams if stream.type != "attachment"}
        if not timed:
            return
        # All are read, so that the clock is the pictures' own.
        self._trials = {index: _Trial(self.original.streams[index], self.container) for index in timed}
        self._steps = {index: _step(self.original.streams[index], self.container) for index in timed}
        for packet in packets(self.original, list(self.original.streams), Damage()):
            index = packet.stream.index
            if index in timed and not self._is_cut_out(packet) and self._settled(packet):
                if self._trials[index].takes(packet):
                    packet.stream = self.copies[index]
                    yield packet
                else:
                    self._left_out[index] += 1

    def _is_cut_out(self, packet: av.Packet) -> bool:
        """Whether an edit list hides it, and not before the start, where decoders may need it."""
        if not packet.is_discard:
            self._begun.add(packet.stream.index)
        return packet.is_discard and packet.stream.index in self._begun

    def _settled(self, packet: av.Packet) -> bool:
        """Whether it is to be written, with times that grow."""
        index = packet.stream.index
        packet.dts = packet.dts if packet.dts is not None else packet.pts
        last = self._last.get(index)
        if packet.dts is None:
            packet.dts = 0 if last is None else last + 1
        packet.pts = packet.pts if packet.pts is not None else packet.dts
        if packet.pts < 0 and "mp4" in self.original.format.name and not self.container.hides:
            if packet.pts + (packet.duration or 0) <= 0:
                return False
            packet.pts, packet.dts = 0, max(packet.dts, 0)
        if last is not None and packet.dts < last + self._steps[index]:
            packet.dts = last + self._steps[index]
            packet.pts = max(packet.pts, packet.dts)
        self._last[index] = packet.dts
        return True

    def left_out(self) -> Iterator[str]:
        """What of the copied tracks the container did not take, once all has been written."""
        for index, count in sorted(self._left_out.items()):
            which = named(self.original.streams[index])
            much = "a packet" if count == 1 else f"{count:,} packets"
            yield f"its {which} is not kept whole: {much} of it cannot be written"


class _Trial:
    """A file of one track, which is written nowhere: whether it takes a packet is known at once, and for one
    with several tracks when another is written."""

    def __init__(self, stream: Any, container: Container) -> None:
        self._out = av.open(os.devnull, "w", format=container.muxer)
        self._copy = _copied(self._out, stream, container)

    def takes(self, packet: av.Packet) -> bool:
        tried = av.Packet(bytes(packet))
        tried.pts, tried.dts, tried.duration = packet.pts, packet.dts, packet.duration
        tried.time_base, tried.stream = packet.time_base, self._copy
        try:
            self._out.mux(tried)
        except FFmpegError:
            return False
        return True


def _step(stream: Any, container: Container) -> int:
    """Ticks by which a track's times must at least grow in a container: of short frames, and of lines that
    are shown together, several have the same."""
    still: Any = FormatFlags.ts_nonstrict
    lax = ContainerFormat(container.muxer, "w").flags & still.value
    return 0 if lax or stream.type in ("subtitle", "data") else 1


def _copied(out: OutputContainer, stream: Any, container: Container) -> Any:
    copy = out.add_stream_from_template(stream, opaque=True)
    if container.counts and stream.type == "audio" and stream.codec_context.codec.canonical_name in FRAMED:
        _count_frames(copy)
    copy.metadata.clear()
    copy.metadata.update(kept_metadata(stream))
    copy.disposition = stream.disposition
    if container.muxer == "mpegts":
        copy.id = stream.id
    return copy


def _count_frames(copy: Any) -> None:
    """Have AVI count the frames of a track: where it is told a size of blocks it counts those, and tells
    wrong times and a wrong length."""
    copy.codec_context.options = {"block_align": "0"}
    copy.codec_context.open()


def kept_metadata(stream: Any) -> dict[str, str]:
    """What a track says of itself, but for how it was written."""
    told = _told(stream.metadata)
    # As FFmpeg reads the title of a track of MP4, and as it takes one to write.
    return told if "name" not in told else {"title": told["name"], **told}


def _told(metadata: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key.lower() not in NOT_SAID}


def named(stream: Any) -> str:
    """sound track 1 (aac): for people."""
    kind = (
        "cover picture"
        if stream.disposition & Disposition.attached_pic
        else f"{KINDS.get(stream.type, 'unknown')} track"
    )
    what = "timecode track" if is_timecode(stream) else kind
    name = getattr(stream, "name", None) or stream.metadata.get("handler_name")
    return f"{what} {stream.index}" + (f" ({name})" if name else "")


def is_timecode(stream: Any) -> bool:
    """Whether it is a track of nothing but the clock that the first frame stood at."""
    return stream.type == "data" and "timecode" in stream.metadata


def _endings(container: Container) -> str:
    return " and ".join(sorted(container.suffixes))


def missing(source: File, target: File, tracks: Tracks) -> Iterator[str]:
    """What a look at the finished file does not find."""
    with opened(source) as before, opened(target) as after:
        theirs = [one for one in after.streams if one.discard != Discard.all]
        ours = [
            one for one in before.streams if one.index not in tracks.dropped and one.discard != Discard.all
        ]
        yield from _unlike(ours, theirs)
        there = {key.lower() for key in after.metadata}
        for key in sorted(_told(before.metadata)):
            if key.lower() not in there:
                yield f"its {key} (metadata) is not kept"
        if len(after.chapters()) < len(before.chapters()):
            yield "its chapters are not kept"


def _unlike(ours: list[Any], theirs: list[Any]) -> Iterator[str]:
    for kind in KINDS:
        before, after = ([one for one in side if one.type == kind] for side in (ours, theirs))
        for stream in before[len(after) :]:
            yield f"its {named(stream)} is not kept"
        for old, new in zip(before, after, strict=False):
            gone = [
                key
                for key in ("language", "title", "name")
                if _of(old, key) not in ("", "und", _of(new, key))
            ]
            gone += [
                str(flag.name) for flag in MARKS if flag in old.disposition and flag not in new.disposition
            ]
            yield from (f"the {key} of its {named(old)} is not kept" for key in gone)


def _of(stream: Any, key: str) -> str:
    return {name.lower(): value for name, value in stream.metadata.items()}.get(key, "")
