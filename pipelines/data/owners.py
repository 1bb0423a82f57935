"""How the owners of each data set lay out its files: one description a set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from spair_core.degradations.catalogue import Task

Role = Literal["input", "target", "mask"]


@dataclass(frozen=True)
class Folders:
    """A set and split whose pictures are told by their paths.

    Each role is a regular expression of a path below the set's root, without its ending, in any case;
    its groups, joined, name the picture and are the same for the files of a pair. An empty `set` is
    named after the folder that holds it, an empty `split` is for the reader to say.
    """

    set: str
    split: str
    target: str
    input: str = ""
    mask: str = ""


@dataclass(frozen=True)
class PairList:
    """A set and split whose pairs are the lines of a list file, with paths below the list's folder."""

    set: str
    split: str
    file: str
    columns: tuple[Role, Role]


@dataclass(frozen=True)
class Layout:
    """What a set is degraded by, where its pictures lie, and an `example` of that for people.

    `kind` is that of its files: pictures, or clips whose frames are the pictures. `scene` is a regular
    expression found in the names of pictures of which several show the same; its groups name what they show.
    """

    task: Task
    example: str
    parts: tuple[Folders | PairList, ...]
    kind: Literal["picture", "clip"] = "picture"
    scene: str = ""

    def scene_of(self, key: str) -> str:
        """What a picture shows, which others may show too; of a picture by itself, its name."""
        match = re.search(self.scene, key) if self.scene else None
        return "/".join(match.groups()) if match else key


FOLDER = r"^(.+)/"
"""Each folder holds the frames of a sequence."""


def _rain100(name: str, train: str, test: str) -> Layout:
    """One of the two sets of Yang et al., whose copies differ in their folders and numbering."""
    return Layout(
        "rain",
        "{train,test}/rainy/rain-001.png with {train,test}/norain-001.png, or rain/ and norain/",
        tuple(
            Folders(
                name,
                split,
                input=rf"(?:{folder})/(?:rainy?/(?:X\d+/)?(?:(?:no)?rain-)?|rain-)0*(\d+)(?:x\d+)?",
                target=rf"(?:{folder})/(?:norain/(?:(?:no)?rain-)?|norain-)0*(\d+)",
            )
            for split, folder in (("train", train), ("test", test))
        ),
    )


def _gopro(name: str, blur: str) -> Layout:
    return Layout(
        "blur",
        f"{{train,test}}/GOPR0372_07_00/{blur}/000047.png with .../sharp/000047.png",
        tuple(
            Folders(
                name,
                split,
                input=rf"{split}/([^/]+/){blur}/([^/]+)",
                target=rf"{split}/([^/]+/)sharp/([^/]+)",
            )
            for split in ("train", "test")
        ),
        scene=FOLDER,
    )


LAYOUTS: Mapping[str, Layout] = {
    "folders": Layout(
        "rain",
        "input/NAME.png with target/NAME.png, and perhaps mask/NAME.png or label/NAME.png",
        (Folders("", "", input=r"input/(.+)", target=r"target/(.+)", mask=r"(?:mask|label)/(.+)"),),
        scene=FOLDER,
    ),
    "clean": Layout("rain", "pictures, in any folders", (Folders("", "", target=r"(.+)"),)),
    "clips": Layout(
        "rain+raindrop", "clips of dry drives, in any folders", (Folders("", "", target=r"(.+)"),), "clip"
    ),
    "clip-pairs": Layout(
        "rain",
        "input/NAME.mp4 with target/NAME.mp4, frame by frame the same scene",
        (Folders("", "", input=r"input/(.+)", target=r"target/(.+)"),),
        "clip",
    ),
    "rain13k": Layout(
        "rain",
        "train/Rain13K/{input,target}/1.jpg, test/Test100/{input,target}/1.png (Rain100H, ...)",
        (
            Folders(
                "Rain13K",
                "train",
                input=r"(?:(?:train/)?Rain13K|(?:Rain13K/)?train)/input/([^/]+)",
                target=r"(?:(?:train/)?Rain13K|(?:Rain13K/)?train)/target/([^/]+)",
            ),
            *(
                Folders(
                    name,
                    "test",
                    input=rf"(?:test/)?{name}/input/([^/]+)",
                    target=rf"(?:test/)?{name}/target/([^/]+)",
                )
                for name in ("Test100", "Rain100H", "Rain100L", "Test1200", "Test2800")
            ),
        ),
    ),
    "rain100h-original": _rain100(
        "Rain100H-original",
        "train|RainTrainH|rain_data_train_Heavy",
        "test|Rain100H|rain_data_test_Heavy|rain_heavy_test",
    ),
    "rain100l-original": _rain100(
        "Rain100L-original",
        "train|RainTrainL|rain_data_train_Light",
        "test|Rain100L|rain_data_test_Light|rain_light_test",
    ),
    "spa": Layout(
        "rain",
        "real_world.txt with a line 'RAINY CLEAN' a pair; real_test_1000/{rain/1rain.png,gt/1gt.png}",
        (
            PairList("SPA", "train", r"real_world\.txt", ("input", "target")),
            Folders(
                "SPA",
                "test",
                input=r"real_test_1000/rain/([^/]*?)_?rain",
                target=r"real_test_1000/gt/([^/]*?)_?gt",
            ),
        ),
        scene=r"([^/-]+)-[^/]*$",  # VIDEO-PART_FRAME
    ),
    "agan": Layout(
        "raindrop",
        "{train,test_a,test_b}/data/0_rain.png with {train,test_a,test_b}/gt/0_clean.png",
        tuple(
            Folders(name, split, input=rf"{folder}/data/([^/]+)_rain", target=rf"{folder}/gt/([^/]+)_clean")
            for name, split, folder in (
                ("AGAN", "train", "train"),
                ("AGAN-a", "test", "test_a"),
                ("AGAN-b", "test", "test_b"),
            )
        ),
    ),
    "istd": Layout(
        "shadow",
        "train/{train_A,train_B,train_C}/1-1.png, test/{test_A,test_B,test_C}/1-1.png",
        tuple(
            Folders(
                "ISTD",
                split,
                input=rf"(?:{split}/)?{split}_A/([^/]+)",
                mask=rf"(?:{split}/)?{split}_B/([^/]+)",
                target=rf"(?:{split}/)?{split}_C/([^/]+)",
            )
            for split in ("train", "test")
        ),
        scene=r"([^/-]+)-[^/]*$",  # PLACE-SHADOW
    ),
    "gopro": _gopro("GoPro", "blur"),
    "gopro-gamma": _gopro("GoPro-gamma", "blur_gamma"),
    "hide": Layout(
        "blur",
        "test/{test-close-ups,test-long-shot}/1.png with GT/1.png",
        (
            Folders("HIDE", "test", input=r"test/test-(?:close-ups|long-shot)/([^/]+)", target=r"GT/([^/]+)"),
            Folders("HIDE", "train", input=r"train/([^/]+)", target=r"GT/([^/]+)"),
        ),
        scene=r"from([^/]+)$",  # NUMBERfromCLIP
    ),
    "realblur-j": Layout(
        "blur",
        "RealBlur_J_{train,test}_list.txt with a line 'SHARP BLURRED' a pair",
        tuple(
            PairList("RealBlur-J", split, rf"RealBlur_J_{split}_list\.txt", ("target", "input"))
            for split in ("train", "test")
        ),
        scene=FOLDER,
    ),
}

if TYPE_CHECKING:
    LayoutName = str
else:
    LayoutName = Literal[tuple(LAYOUTS)]
    """What a flag --layout takes."""
