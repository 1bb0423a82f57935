"""Small files of every kind, for the tests that walk the kinds."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from PIL import Image

from pipelines.media import Encoding, Medium, medium
from pipelines.media.packings import streams, tarballs
from tests.pipelines.media.test_clips import make_clip

Pixels = np.ndarray


def encoded(pixels: Pixels, suffix: str = ".png") -> bytes:
    """A picture's file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, Image.registered_extensions()[suffix])
    return stream.getvalue()


def make_archive(path: Path, members: Mapping[str, bytes]) -> Path:
    """An archive of the kind and compression that its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
        return path
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    path.write_bytes(stream.getvalue())
    compress(path)
    return path


def compress(path: Path) -> None:
    """A tar archive, as its name says."""
    data, letters = path.read_bytes(), path.suffix.removeprefix(".t").removeprefix(".")
    found = {
        "gz": streams.GZIP, "bz2": streams.BZIP2, "xz": streams.XZ, "zst": streams.ZSTANDARD
    }.get(letters)  # fmt: skip
    if found is not None:
        with path.open("wb") as file, found.written(file) as out:
            out.write(data)


def make_table(path: Path, pictures: Sequence[bytes | None]) -> Path:
    """A table with a column `image`, and another."""
    table = pa.table({"image": pa.array(pictures, pa.binary()), "label": list(range(len(pictures)))})
    pq.write_table(table, path)
    return path


def picture(path: Path, frames: list[Pixels]) -> list[Pixels]:
    path.write_bytes(encoded(frames[0], path.suffix))
    return frames[:1]


def several(path: Path, frames: list[Pixels]) -> list[Pixels]:
    """Frames or pages. Of more than three in one MPO, Pillow gets the places wrong."""
    format = Image.registered_extensions()[path.suffix]
    if format in ("JPEG", "MPO"):
        frames = frames[:2]
        Image.fromarray(frames[0]).save(
            path, "MPO", save_all=True, append_images=[Image.fromarray(frames[1])], quality=90
        )
        return frames
    first, *others = [Image.fromarray(frame) for frame in frames[:4]]
    first.save(path, format, save_all=True, append_images=others, duration=40)
    return frames[:4]


def clip(path: Path, frames: list[Pixels]) -> list[Pixels]:
    make_clip(path, frames)
    return frames


def archive(path: Path, frames: list[Pixels]) -> list[Pixels]:
    members = {f"{number}.png": encoded(frame) for number, frame in enumerate(frames[:3])}
    make_archive(path, {"note.txt": b"not a picture", **members})
    return frames[:3]


def table(path: Path, frames: list[Pixels]) -> list[Pixels]:
    make_table(path, [encoded(frame) for frame in frames[:3]])
    return frames[:3]


SAMPLES: Mapping[str, Callable[[Path, list[Pixels]], list[Pixels]]] = {
    "picture": picture,
    "frames": several,
    "clip": clip,
    "archive": archive,
    "table": table,
}
"""By a kind's name, what writes a file with some frames of one size, and gives those that it took."""


def sample(one: Medium, path: Path, photo: Pixels) -> list[Pixels]:
    """Write a file of that kind with frames 64x48, and give these."""
    return SAMPLES[one.name](path, [np.roll(photo[:48, :64], k, axis=1) for k in range(40)])


def tar_of(
    path: Path, *members: tuple[tarfile.TarInfo | str, bytes], format: int = tarfile.GNU_FORMAT
) -> Path:
    """A tar archive of (TarInfo or name, content)."""
    with tarfile.open(path, "w", format=format) as archive:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def link(name: str, target: str, type: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    """A link as a member of `tar_of`."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, target
    return info, b""


def tarball_header(
    name: str,
    size: int,
    extra: Mapping[bytes, bytes] | None = None,
    type: bytes = b"0",
    linkname: str = "",
) -> bytes:
    """The blocks before a member's content, with POSIX records."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, type, linkname
    own = info.tobuf(tarfile.USTAR_FORMAT)
    if not extra:
        return own
    records = b"".join(tarballs._record(key, value) for key, value in extra.items())
    ahead = tarfile.TarInfo("ahead")
    ahead.type, ahead.size = tarfile.XHDTYPE, len(records)
    return ahead.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512) + own


def restored(
    source: Path, target: Path, change: Callable[[int, Pixels], Pixels] = lambda number, pixels: pixels ^ 1
) -> list[str]:
    """Restore an archive, with `change` in place of a model; what was noted of it."""
    kind = medium("archive")
    notes, parts = [], []
    for number, piece in enumerate(kind.read(source, None)):
        notes += piece.notes
        parts.append(kind.write(piece.state, change(number, piece.window.pixels), Encoding()))
    return [*notes, *kind.join(iter(parts), source, target)]


def contents(path: Path) -> list[bytes]:
    """Of every regular member, in order."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return [archive.read(info) for info in archive.infolist()]
    data = io.BytesIO(path.read_bytes())
    if path.suffix.endswith("zst"):
        data = io.BytesIO(zstandard.ZstdDecompressor().stream_reader(data).read())
    with tarfile.open(fileobj=data) as archive:
        return [archive.extractfile(info).read() for info in archive if info.isfile()]
