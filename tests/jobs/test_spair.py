"""The command `spair`: its subcommands beside their jobs, and `spair restore` as its users run it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from jobs import entry, spair
from pipelines.restoration.here.local import Local
from pipelines.services import storage
from spair_core import weights
from spair_core.network import Spair
from spair_core.panels import CAPTION
from tests.pipelines.media.samples import encoded, make_archive, make_table
from tests.pipelines.media.test_clips import make_clip

JOBS = Path(__file__).resolve().parents[2] / "jobs"
ALL = {**spair.COMMANDS, **{f"train {name}": command for name, command in spair.TRAININGS.items()}}


def called(*words: object) -> int:
    """The exit code of such a command."""
    with pytest.raises(SystemExit) as end:
        spair.main([str(word) for word in words])
    return int(end.value.code or 0)


@pytest.fixture
def here(tmp_path, monkeypatch, photos, tiny_weights):
    """A folder with a picture in it, and a model that finds something in it."""
    (tmp_path / "model").write_bytes(tiny_weights)
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "photo.png").write_bytes(encoded(photos[0][:48, :64]))
    monkeypatch.chdir(folder)
    return folder


RESTORE = ("restore", "--model", "../model", "--min-degraded", "0", "--device", "cpu")


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# The commands and their jobs


def test_every_job_is_a_command():
    scripts = {path.stem for path in JOBS.glob("*.py")} - {"__init__", "entry", "spair"}
    reached = {module_of(command).removeprefix("jobs.") for command in ALL.values()}
    assert reached == scripts


def module_of(command) -> str:
    """The job that a command imports."""
    found = re.search(r"from jobs import (\w+)", Path(spair.__file__).read_text()[code_at(command) :])
    return f"jobs.{found[1]}"


def code_at(command) -> int:
    return Path(spair.__file__).read_text().index(f"def {command.__name__}(")


@pytest.mark.parametrize("name", ALL)
def test_a_command_has_the_flags_of_its_job(name, capsys, monkeypatch):
    assert called(*name.split(), "--help") == 0
    ours = capsys.readouterr().out
    assert f"usage: spair {name} " in ours
    assert "python jobs/" not in ours
    command = ALL[name]()
    monkeypatch.setattr(sys, "argv", ["jobs/job.py", "--help"])
    with pytest.raises(SystemExit):
        entry.run(command.work, command.config, "a job")
    theirs = capsys.readouterr().out
    flags = re.compile(r"^│ (-.*?|\[?[A-Z]+.*?)(?:  |│)", re.MULTILINE)
    assert flags.findall(ours) == flags.findall(theirs)
    assert "--" in theirs


def test_help_lists_the_commands_and_exit_codes(capsys):
    assert called("--help") == 0
    told = capsys.readouterr().out
    assert all(re.search(rf"^    {name} ", told, re.MULTILINE) for name in (*spair.COMMANDS, "train"))
    assert entry.EXITS in told
    assert called("train", "--help") == 0
    told = capsys.readouterr().out
    assert all(f"    {name} " in told for name in spair.TRAININGS)


def test_help_waits_for_nothing_large():
    shown = (
        "import sys\nfrom jobs import spair\n"
        "try:\n    spair.main(['--help'])\n"
        "finally:\n    assert not {'torch', 'ray', 'mlflow', 'pyarrow', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, cwd=JOBS.parent)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_no_command_is_told_what_comes_near(capsys):
    assert called("restor") == entry.USAGE
    assert capsys.readouterr().err == "error: no command 'restor': did you mean restore? (spair --help)\n"
    assert called("train", "zzz") == entry.USAGE
    assert "derain, raindrop" in capsys.readouterr().err


def test_version_and_unknown_shells(capsys):
    assert called("--version") == 0
    assert capsys.readouterr().out.startswith("spair ")
    assert called("completion", "tclsh") == entry.USAGE
    assert "bash, zsh" in capsys.readouterr().err


# spair restore


def test_a_picture_is_restored_beside_itself(here, capsys):
    assert called(*RESTORE, "photo.png") == 0
    assert names(here) == {"photo.png", "photo.restored.png"}
    before, after = (np.asarray(Image.open(here / name)) for name in ("photo.png", "photo.restored.png"))
    assert before.shape == after.shape
    assert (before != after).any()
    told = capsys.readouterr().out
    assert re.fullmatch(r"restored: photo.png -> photo.restored.png: \d+\.\d% of it was degraded\n", told)


def test_nothing_is_written_over_unless_it_is_asked_for(here, capsys):
    (here / "photo.restored.png").write_bytes(b"mine")
    assert called(*RESTORE, "photo.png") == entry.NOTHING_TO_DO
    assert (here / "photo.restored.png").read_bytes() == b"mine"
    assert "--force" in capsys.readouterr().out
    assert called(*RESTORE, "photo.png", "--force") == 0
    assert (here / "photo.restored.png").read_bytes() != b"mine"
    (here / "photo.restored.png").unlink()
    (here / "photo.compare.png").write_bytes(b"mine")
    assert called(*RESTORE, "photo.png", "--compare") == entry.NOTHING_TO_DO
    assert (here / "photo.compare.png").read_bytes() == b"mine"


def test_what_nothing_is_found_in_is_copied(here, capsys, tiny_config):
    card = weights.ModelCard(replace(tiny_config, binarize=1.0), "rain", 0.05)
    (here.parent / "blind").write_bytes(weights.save(Spair(card.network), card))
    assert called("restore", "photo.png", "--model", "../blind") == 0
    assert (here / "photo.restored.png").read_bytes() == (here / "photo.png").read_bytes()
    assert "passed: photo.png -> photo.restored.png: nothing was found" in capsys.readouterr().out


def test_a_folder_of_everything(here, photos, capsys):
    frames = [np.roll(photos[1][:48, :64], k, axis=1) for k in range(4)]
    (here / "deep").mkdir()
    make_clip(here / "deep" / "clip.mp4", frames)
    make_archive(here / "photos.tar.gz", {"a.png": encoded(frames[0]), "b.txt": b"text"})
    make_table(here / "table.parquet", [encoded(frames[0])])
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(here / "moving.gif", save_all=True, append_images=rest, duration=40)
    (here / "notes.txt").write_text("none of ours")
    (here / "broken.jpg").write_bytes(b"nonsense")
    assert called(*RESTORE, ".", "--out", "dry") == entry.TOO_MANY_BAD
    kept = names(here / "dry")
    assert kept == {"photo.png", "deep/clip.mp4", "photos.tar.gz", "table.parquet", "moving.gif"}
    told = capsys.readouterr()
    assert "rejected: ./broken.jpg: not a picture" in told.out
    assert "ignored: ./notes.txt" in told.out
    assert "1 ignored, 1 rejected, 5 restored" in told.out
    assert told.err == "error: 1 of 7 files could not be restored\n"
    # Again, it finds what it wrote.
    (here / "broken.jpg").unlink()
    assert called(*RESTORE, ".", "--out", "dry") == entry.NOTHING_TO_DO
    assert names(here / "dry") == kept


def test_what_a_run_wrote_is_not_restored_again(here):
    assert called(*RESTORE, ".") == 0
    assert called(*RESTORE, ".") == entry.NOTHING_TO_DO
    assert names(here) == {"photo.png", "photo.restored.png"}


def test_one_file_goes_where_out_says(here, capsys):
    assert called(*RESTORE, "photo.png", "--out", "made/dry.png") == 0
    assert called(*RESTORE, "photo.png", "--out", "folder") == 0
    assert names(here) == {"photo.png", "made/dry.png", "folder/photo.png"}
    assert called(*RESTORE, "photo.png", "--out", "dry.jpg") == entry.USAGE
    assert "keeps its format" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (("photo.png", "--in-place"), entry.USAGE, "never written to"),
        (("photo.png", "--out", "."), entry.USAGE, "take the place of its source"),
        (("photo.png", "--out", "photo.png", "--force"), entry.USAGE, "take the place of its source"),
        (("photo.png", "./photo.png", "--out", "x"), entry.USAGE, "2 files would be written"),
        ((), entry.USAGE, "name the files"),
        (("none.png",), entry.NOTHING_TO_DO, "none.png: nothing is there"),
        (("empty",), entry.NOTHING_TO_DO, "empty: holds no files"),
        (("photo.png", "empty"), entry.NOTHING_TO_DO, "empty: holds no files; --out names"),
        (("notes.txt",), entry.NOTHING_TO_DO, r"notes.txt: .*\.avif.*\.zip"),
        (("photo.png", "--model", "no-such"), entry.USAGE, "footage-light"),
    ],
)
def test_an_error_is_a_line_with_its_remedy(here, flags, code, told, capsys):
    (here / "empty").mkdir()
    (here / "notes.txt").write_text("none of ours")
    before = names(here)
    assert called(*RESTORE, *flags) == code
    assert re.fullmatch(rf"error: .*{told}.*\n", capsys.readouterr().err)
    assert names(here) == before


def test_what_cannot_be_written_is_told_and_the_rest_goes_on(here, capsys):
    (here / "wall").write_text("a file where a folder is needed")
    (here / "second.png").write_bytes((here / "photo.png").read_bytes())
    assert called(*RESTORE, "photo.png", "second.png", "--out", "wall/x") == entry.TOO_MANY_BAD
    assert capsys.readouterr().out.count("failed: ") == 2


def test_before_and_after_side_by_side(here, photos, capsys):
    Image.fromarray(photos[0][:48, :64]).save(here / "other.jpg")
    make_clip(here / "clip.mp4", [np.roll(photos[1][:48, :64], k, axis=1) for k in range(4)])
    make_archive(here / "photos.zip", {"a.png": encoded(photos[0][:48, :64])})
    assert called(*RESTORE, "photo.png", "other.jpg", "clip.mp4", "photos.zip", "--compare") == 0
    compared = {name for name in names(here) if ".compare." in name}
    assert compared == {"photo.compare.png", "other.compare.jpg", "clip.compare.mp4"}
    picture = np.asarray(Image.open(here / "photo.compare.png"))
    assert picture.shape[1] == 128
    after = np.asarray(Image.open(here / "photo.restored.png"))
    assert (picture[-48:, :64] == photos[0][:48, :64]).all()
    assert (picture[-48:, 64:] == after).all()
    with av.open(str(here / "clip.compare.mp4")) as clip:
        assert clip.streams.video[0].width == 128
        assert len(list(clip.decode(video=0))) == 4
        assert len(clip.streams.audio) == sounds(here / "clip.mp4")
    told = capsys.readouterr().out
    assert "compared: photo.png -> photo.compare.png" in told
    assert "restored: photos.zip: no comparison was written" in told


def test_a_turned_clip_is_compared_as_players_show_it(here, photos):
    """With its caption, which is black, above both, and these beside one another."""
    make_clip(here / "straight.mp4", [photos[1][:48, :64]] * 2)
    with av.open(str(here / "straight.mp4")) as source, av.open(str(here / "turned.mp4"), "w") as turned:
        stream = turned.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                turned.mux(packet)
    assert called(*RESTORE, "turned.mp4", "--compare") == 0
    with av.open(str(here / "turned.compare.mp4")) as clip:
        frame = next(clip.decode(video=0))
    shown = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    assert shown.shape[:2] == (64 + CAPTION, 2 * 48)
    assert shown[2, 60:90].max() < 40


@pytest.mark.parametrize(("shell", "mark"), [("fish", "function _tyro_spair"), ("zsh", "#compdef spair")])
def test_other_shells_are_completed_too(shell, mark, capsys):
    assert called("completion", shell) == 0
    assert mark in capsys.readouterr().out


def test_completion_in_bash(here, capsys):
    assert called("completion", "bash") == 0
    (here / "script").write_text(capsys.readouterr().out)
    asks = (
        'source ./script; for words in "re" "train d" "restore --mi" "restore pho"; do '
        "COMP_WORDS=(spair $words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=(); "
        '_tyro_spair; echo "${COMPREPLY[@]}"; done; complete -p spair'
    )
    done = subprocess.run(["bash", "-c", asks], capture_output=True, text=True, cwd=here, timeout=240)
    *found, registered = done.stdout.splitlines()
    assert found == ["report restore restore-bulk", "deblur derain", "--min-degraded", ""]
    assert "-o default" in registered  # names of files, where there is nothing else


def sounds(path: Path) -> int:
    with av.open(str(path)) as clip:
        return len(clip.streams.audio)


def test_quiet_says_only_what_is_wrong(here, capsys):
    (here / "broken.jpg").write_bytes(b"nonsense")
    assert called(*RESTORE, "photo.png", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert called(*RESTORE, "broken.jpg", "-q") == entry.TOO_MANY_BAD
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "broken.jpg: not a picture" in shown.err


def test_a_bar_on_a_terminal(here, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert called(*RESTORE, "photo.png") == 0
    shown = capsys.readouterr()
    assert "100%" in shown.err
    assert shown.out.startswith("restored: photo.png")


def test_from_a_store_and_to_one(here, s3):
    storage.write_bytes(f"{s3}/in/photo.png", (here / "photo.png").read_bytes())
    assert called(*RESTORE, f"{s3}/in/photo.png") == 0
    assert called(*RESTORE, f"{s3}/in/", "--out", "dry") == 0
    assert called(*RESTORE, "photo.png", "--out", f"{s3}/out/") == 0
    made = storage.read_bytes(f"{s3}/in/photo.restored.png")
    assert made == (here / "dry" / "photo.png").read_bytes() == storage.read_bytes(f"{s3}/out/photo.png")
    assert names(here) == {"photo.png", "dry/photo.png"}


@pytest.mark.long
def test_neither_ray_nor_mlflow_is_imported(here):
    shown = (
        "import sys\nfrom jobs import spair\n"
        f"try:\n    spair.main([*{RESTORE!r}, 'photo.png'])\n"
        "finally:\n    assert not {'ray', 'mlflow', 'torch._dynamo'} & set(sys.modules)\n"
    )
    paths = {**os.environ, "PYTHONPATH": str(JOBS.parent)}
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, env=paths)
    assert (done.returncode, done.stderr) == (0, "")
    assert "restored: photo.png" in done.stdout


def test_interrupted_it_leaves_no_half_files(here, monkeypatch, capsys):
    restored = Local.frames

    def interrupted(self, piece):
        os.kill(os.getpid(), signal.SIGINT)
        return restored(self, piece)

    monkeypatch.setattr(Local, "frames", interrupted)
    assert called(*RESTORE, "photo.png") == 130
    assert names(here) == {"photo.png"}
    assert capsys.readouterr().err == "stopped by SIGINT; start the job again to go on\n"


def test_no_source_gives_way_to_a_comparison(here):
    (here / "photo.compare.png").write_bytes((here / "photo.png").read_bytes())
    before = (here / "photo.compare.png").read_bytes()
    assert called(*RESTORE, "photo.png", "photo.compare.png", "--compare", "--force") == 2
    assert (here / "photo.compare.png").read_bytes() == before
