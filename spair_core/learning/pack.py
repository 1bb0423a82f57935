"""A file of pictures and clips to learn from, small enough to travel: photographs, pairs and dry drives.

    python -m spair_core.learning.pack footage.zip --photographs photos/*.jpg --clips drives/*.mp4 \\
        --pairs rain=pairs/rain100 --pairs raindrop=pairs/glass
    python -m spair_core.learning.pack shadows.zip --photographs photos/*.jpg --shadow-masks masks/*.png

It is a plain zip. Photographs and pairs are in it as JPEG of quality 95 with full colour, masks of shadows
as PNG, clips and measured kernels of shaken cameras as they came; `pack.json` says what each is and where it
is from. A folder of pairs has `input/` and `target/` with files of the same names.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from spair_core.degradations.crops import Example
from spair_core.degradations.motion import ShakeKernels
from spair_core.images import PictureError, decode_mask

Pixels = NDArray[np.uint8]

VERSION = 1
RECORD = "pack.json"
QUALITY = 95
"""Of JPEG."""


class PackError(ValueError):
    """A pack, or what is to go into one, cannot be read; the message names it."""


@dataclass(frozen=True)
class Entry:
    """What a pack holds: a `photograph`, a `pair` (`file` is its degraded picture), a `clip`, a `shadow mask`
    or a file of `shakes`."""

    kind: str
    file: str
    source: str
    target: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class Clip:
    """Frames uint8 [H, W, 3] of a dry drive, and how many there are a second."""

    frames: Sequence[Pixels]
    rate: float


@dataclass(frozen=True)
class Pack:
    """A pack in memory: clean photographs, pairs with their task, clips, masks bool [H, W] of shadows and
    kernels [k, l] of shaken cameras."""

    photographs: tuple[Pixels, ...] = ()
    pairs: tuple[tuple[str, Example], ...] = ()
    clips: tuple[Clip, ...] = ()
    shadow_masks: tuple[NDArray[np.bool_], ...] = ()
    shakes: tuple[NDArray[np.floating], ...] = ()


class SharedPack:
    """A pack that processes can have without a copy each: its pixels are in a file that all map.

    The file is gone with the object that was made of the pack; pickled, it is only its name.
    """

    def __init__(self, pack: Pack) -> None:
        buffers: list[pickle.PickleBuffer] = []
        self._skeleton = pickle.dumps(pack, 5, buffer_callback=buffers.append)
        self._file = tempfile.NamedTemporaryFile(prefix="spair-pack-")  # noqa: SIM115
        self._ends = [0]
        for buffer in buffers:
            self._ends.append(self._ends[-1] + self._file.write(buffer.raw()))
        self._file.flush()
        self._name = self._file.name

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_file"}

    def pack(self) -> Pack:
        """The pack, its pixels not to be written."""
        pixels = np.memmap(self._name, np.uint8, "r") if self._ends[-1] else np.empty(0, np.uint8)
        buffers = [pixels[start:end] for start, end in pairwise(self._ends)]
        return cast(Pack, pickle.loads(self._skeleton, buffers=buffers))


def write_pack(
    path: Path,
    photographs: Iterable[Path] = (),
    pairs: Iterable[tuple[str, Path]] = (),
    clips: Iterable[Path] = (),
    *,
    shadow_masks: Iterable[Path] = (),
    shakes: Path | None = None,
    longest: int | None = None,
) -> int:
    """Write a pack; `pairs` are tasks with their folders, `shadow_masks` pictures that are bright in shadow,
    `shakes` an NPZ file of kernels; photographs with a side over `longest` pixels are made smaller. Gives its
    size in bytes. Raises PackError."""
    entries = []
    with zipfile.ZipFile(path, "w") as archive:  # everything in it is compressed already
        for number, photo in enumerate(photographs):
            entries.append(Entry("photograph", f"photographs/{number:05}.jpg", photo.name))
            archive.writestr(entries[-1].file, _as_jpeg(photo, longest))
        for task, folder in pairs:
            for degraded, clean in _both(folder):
                stem = f"pairs/{len(entries):05}"
                entry = Entry("pair", f"{stem}.input.jpg", degraded.name, f"{stem}.target.jpg", task)
                archive.writestr(entry.file, _as_jpeg(degraded))
                archive.writestr(f"{stem}.target.jpg", _as_jpeg(clean))
                entries.append(entry)
        for number, clip in enumerate(clips):
            entries.append(Entry("clip", f"clips/{number:03}{clip.suffix}", clip.name))
            archive.write(clip, entries[-1].file)
        for number, mask in enumerate(shadow_masks):
            entries.append(Entry("shadow mask", f"shadow_masks/{number:05}.png", mask.name))
            archive.writestr(entries[-1].file, _as_mask(mask))
        if shakes is not None:
            entries.append(Entry("shakes", "shakes.npz", shakes.name))
            archive.writestr("shakes.npz", _kernels_in(shakes))
        archive.writestr(RECORD, json.dumps({"version": VERSION, "entries": [asdict(e) for e in entries]}))
    return path.stat().st_size


def _both(folder: Path) -> list[tuple[Path, Path]]:
    inputs = sorted((folder / "input").glob("*"))
    found = [(file, folder / "target" / file.name) for file in inputs]
    missing = [str(target) for _, target in found if not target.exists()]
    if not found or missing:
        raise PackError(
            f"{folder}: {f'{missing[0]} is missing' if missing else 'no pictures in input/'}; a folder of "
            "pairs has input/ and target/ with files of the same names"
        )
    return found


def _as_jpeg(path: Path, longest: int | None = None) -> bytes:
    data = path.read_bytes()
    try:
        image = Image.open(io.BytesIO(data))
        small = longest is None or max(image.size) <= longest
        if image.format == "JPEG" and image.mode == "RGB" and small:
            return data  # once more would lose more
        colours = image.convert("RGB")
        if longest is not None:
            colours.thumbnail((longest, longest), Image.Resampling.BOX)
        file = io.BytesIO()
        colours.save(file, "JPEG", quality=QUALITY, subsampling=0)
        return file.getvalue()
    except (UnidentifiedImageError, OSError) as error:
        raise PackError(f"{path}: is not a picture ({error})") from error


def _as_mask(path: Path) -> bytes:
    try:
        mask = decode_mask(path.read_bytes())
    except (PictureError, OSError) as error:
        raise PackError(f"{path}: is no mask of shadows ({error})") from error
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def _kernels_in(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        ShakeKernels(_kernels(data))
    except (ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise PackError(f"{path}: is no NPZ file of blur kernels, as numpy.savez writes: {error}") from error
    return data


def _kernels(data: bytes) -> tuple[NDArray[np.floating], ...]:
    kernels = np.load(io.BytesIO(data))
    return tuple(kernels[name] for name in kernels.files)


def read_pack(path: Path) -> Pack:
    """The pack at `path`, all of it decoded. Raises PackError."""
    try:
        with zipfile.ZipFile(path) as archive:
            record = json.loads(archive.read(RECORD))
            if record["version"] != VERSION:
                raise PackError(f"{path}: is a pack of version {record['version']}; make it anew")
            entries = [Entry(**values) for values in record["entries"]]
            return _read(archive, entries)
    except (OSError, KeyError, TypeError, json.JSONDecodeError, zipfile.BadZipFile) as error:
        raise PackError(
            f"{path}: is no pack of python -m spair_core.learning.pack, or is damaged: {error!r}"
        ) from error


def _read(archive: zipfile.ZipFile, entries: Sequence[Entry]) -> Pack:
    def picture(name: str) -> Pixels:
        return np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))

    def of(kind: str) -> list[Entry]:
        return [entry for entry in entries if entry.kind == kind]

    pairs = [(e.task or "", picture(e.file), picture(e.target or "")) for e in of("pair")]
    return Pack(
        tuple(picture(e.file) for e in of("photograph")),
        tuple((task, Example(degraded, clean)) for task, degraded, clean in pairs),
        tuple(_clip(archive.read(e.file), Path(e.file).suffix, e.source) for e in of("clip")),
        tuple(decode_mask(archive.read(e.file)) for e in of("shadow mask")),
        tuple(kernel for e in of("shakes") for kernel in _kernels(archive.read(e.file))),
    )


def _clip(data: bytes, suffix: str, source: str) -> Clip:
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:  # OpenCV reads clips from files alone
        file.write(data)
        file.flush()
        stream = cv2.VideoCapture(file.name)
        rate, frames = stream.get(cv2.CAP_PROP_FPS), []
        while (read := stream.read())[0]:
            frames.append(np.asarray(read[1][..., ::-1], dtype=np.uint8).copy())
        stream.release()
    if not frames or not rate > 0:
        raise PackError(f"{source}: OpenCV reads no frames of it; put it into the pack as H.264 in MP4")
    return Clip(frames, rate)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the flags, write the pack and say how large it is."""
    parser = argparse.ArgumentParser(
        prog="python -m spair_core.learning.pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pack", type=Path, help="the file to write")
    parser.add_argument("--photographs", type=Path, nargs="*", default=[], help="clean pictures")
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="dry drives")
    parser.add_argument("--pairs", action="append", default=[], metavar="TASK=FOLDER", help="real pairs")
    parser.add_argument(
        "--shadow-masks", type=Path, nargs="*", default=[], help="pictures that are bright in shadow"
    )
    parser.add_argument("--shakes", type=Path, help="NPZ file of measured kernels of shaken cameras")
    parser.add_argument(
        "--longest", type=int, metavar="PIXELS", help="of a photograph's sides; none by default"
    )
    flags = parser.parse_args(arguments)
    if not all("=" in pair for pair in flags.pairs):
        parser.error("--pairs takes TASK=FOLDER, such as rain=pairs/rain100")
    pairs = [(task, Path(folder)) for task, _, folder in (pair.partition("=") for pair in flags.pairs)]
    try:
        size = write_pack(
            flags.pack,
            flags.photographs,
            pairs,
            flags.clips,
            shadow_masks=flags.shadow_masks,
            shakes=flags.shakes,
            longest=flags.longest,
        )
    except (PackError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{flags.pack}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
