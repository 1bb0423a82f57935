"""`spair`: one command for all jobs. A subcommand is a job of this folder, with its flags and exit codes.

What a job needs is imported when it is called, so that the others do not wait for it.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NoReturn, Union

import tyro

from jobs import entry

HELP = """\
spair takes rain, raindrops, shadows and motion blur out of pictures and footage.

    spair restore photo.jpg                      writes photo.restored.jpg beside it
    spair restore drive.mp4 --compare            and drive.compare.mp4: before and after, side by side
    spair restore holiday/ --out dry/            a folder, under the same names
    spair evaluate --model rain-light --data data/test/Rain100L
    spair train deblur --data s3://shards/gopro --storage s3://models/runs --name blur-1
    spair COMMAND --help                         its flags, with examples

Commands:

{commands}

Locations are paths or URIs (s3://, gs://, file://); credentials come from the environment, as do
AWS_ENDPOINT_URL, RAY_ADDRESS (else this machine) and MLFLOW_TRACKING_URI (else mlflow.db here).
`restore` needs none of them.

{exits}"""

TRAIN_HELP = """\
Train a model, and register it. Each task is the recipe of a paper as defaults of the same flags.

    spair train derain --data s3://shards/rain13k --storage s3://models/runs --name rain-1
    spair train TASK --help                      its recipe and flags

Tasks:

{commands}

{exits}"""

COMPLETION_HELP = """\
Print what makes a shell complete commands and flags: spair completion {bash,zsh,fish,tcsh}

    spair completion bash > ~/.local/share/bash-completion/completions/spair
    spair completion zsh > ~/.zfunc/_spair       with fpath+=~/.zfunc before compinit in ~/.zshrc
    spair completion fish > ~/.config/fish/completions/spair.fish
"""
SHELLS = ("bash", "zsh", "fish", "tcsh")


@dataclass(frozen=True)
class Command:
    """A job as `jobs.entry.run` takes it."""

    work: Callable[[Any], object]
    config: Any
    description: str | None


def _restore() -> Command:
    """Pictures, clips, folders and URIs, here and now."""
    # Before torch is imported: threads that spin while they wait for one another are slow beside other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from jobs import restore as job

    return Command(job.main, job.HereConfig, job.__doc__)


def _restore_bulk() -> Command:
    """A whole prefix, on a cluster or all cores, with a manifest."""
    from jobs import restore_bulk as job

    return Command(job.main, job.RestoreConfig, job.__doc__)


def _nightly() -> Command:
    """The same for last night's footage."""
    from jobs import nightly_derain as job

    return Command(job.main, job.NightlyConfig, job.__doc__)


def _ingest() -> Command:
    """A data set into Parquet shards."""
    from jobs import ingest as job

    return Command(job.main, job.IngestConfig, job.__doc__)


def _evaluate() -> Command:
    """A model on sets with truth, perhaps beside the paper's tables."""
    from jobs import evaluate as job

    return Command(job.main, job.EvaluateConfig, job.__doc__)


def _compare() -> Command:
    """Two models on footage without truth."""
    from jobs import compare as job

    return Command(job.main, job.CompareConfig, job.__doc__)


def _promote() -> Command:
    """A registered version to champion, if it is better."""
    from jobs import promote as job

    return Command(job.main, job.PromoteConfig, job.__doc__)


def _analyse() -> Command:
    """What a model does with a picture, as a page."""
    from jobs import analyse as job

    return Command(job.main, job.AnalyseConfig, job.__doc__)


def _ablate() -> Command:
    """Net1 to Net5 of the paper, trained and judged."""
    from jobs import ablate as job

    return Command(job.main, job.AblateConfig, job.__doc__)


def _report() -> Command:
    """What came of a restoration, as a page."""
    from jobs import report as job

    return Command(job.main, job.ReportConfig, job.__doc__)


def _derain() -> Command:
    """Rain streaks."""
    from jobs import train_derain as job

    return Command(job.train, job.RECIPE, job.__doc__)


def _raindrop() -> Command:
    """Raindrops on glass."""
    from jobs import train_raindrop as job

    return Command(job.train, job.RECIPE, job.__doc__)


def _shadow() -> Command:
    """Cast shadows."""
    from jobs import train_shadow as job

    return Command(job.train, job.RECIPE, job.__doc__)


def _deblur() -> Command:
    """Motion blur."""
    from jobs import train_deblur as job

    return Command(job.train, job.RECIPE, job.__doc__)


def _joint() -> Command:
    """Rain streaks and raindrops alike."""
    from jobs import train_joint as job

    return Command(job.train, job.RECIPE, job.__doc__)


def _footage() -> Command:
    """Drives in rain, beside what neighbouring frames know."""
    from jobs import train_footage as job

    return Command(job.train, job.RECIPE, job.__doc__)


Commands = Mapping[str, Callable[[], Command]]
COMMANDS: Commands = {
    "restore": _restore,
    "restore-bulk": _restore_bulk,
    "nightly": _nightly,
    "ingest": _ingest,
    "evaluate": _evaluate,
    "compare": _compare,
    "promote": _promote,
    "analyse": _analyse,
    "ablate": _ablate,
    "report": _report,
}
TRAININGS: Commands = {
    "derain": _derain,
    "raindrop": _raindrop,
    "shadow": _shadow,
    "deblur": _deblur,
    "joint": _joint,
    "footage": _footage,
}
"""Each is a command that `train` comes before."""
OWN = {
    "train": "A model: " + ", ".join(TRAININGS) + ".",
    "completion": "For a shell: " + ", ".join(SHELLS) + ".",
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Do what the arguments (this process's own) say, and exit with a code of `entry.EXITS`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    entry.end_with(lambda: _done(words))


def _done(words: Sequence[str]) -> object:
    if not words or words[0] in ("-h", "--help", "help"):
        return _print(_help(HELP, {**_told(COMMANDS), **OWN}))
    name, *rest = words
    if name == "--version":
        return _print(f"spair {_version()}")
    if name == "completion":
        return _complete(rest)
    if name == "train":
        return _train(rest)
    return _job(_among(COMMANDS, name, OWN), f"spair {name}", rest)


def _train(words: Sequence[str]) -> object:
    if not words or words[0] in ("-h", "--help"):
        return _print(_help(TRAIN_HELP, _told(TRAININGS)))
    return _job(_among(TRAININGS, words[0]), f"spair train {words[0]}", words[1:])


def _among(commands: Commands, name: str, others: Mapping[str, str] = {}) -> Callable[[], Command]:
    """Raises ValueError, which names what comes near."""
    if name not in commands:
        known = [*commands, *others]
        near = difflib.get_close_matches(name, known, 1)
        told = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"no command {name!r}: {told} (spair --help)")
    return commands[name]


def _job(command: Callable[[], Command], program: str, flags: Sequence[str]) -> object:
    job = command()
    description = as_commands(job.description or "")
    return job.work(entry.parsed(job.config, description, program=program, flags=flags))


def as_commands(text: str) -> str:
    """A job's description with `spair evaluate` in place of `python jobs/evaluate.py`, and so with all."""
    text = re.sub(r"(python )?jobs/train_(\w+)\.py", r"spair train \2", text)
    text = re.sub(r"(python )?jobs/nightly_derain\.py", "spair nightly", text)
    return re.sub(r"(python )?jobs/(\w+)\.py", lambda found: f"spair {found[2].replace('_', '-')}", text)


def _complete(words: Sequence[str]) -> object:
    if not words or words[0] not in SHELLS:
        asked = not words or words[0] in ("-h", "--help")
        if asked:
            return _print(COMPLETION_HELP)
        raise ValueError(f"no completion for {words[0]!r}: there is one for {', '.join(SHELLS)}")
    kinds = {name: _flags(name, command()) for name, command in COMMANDS.items()}
    kinds["train"] = Annotated[
        _one_of(_flags(name, command()) for name, command in TRAININGS.items()), tyro.conf.subcommand("train")
    ]
    options = (*entry.OPTIONS, tyro.conf.OmitSubcommandPrefixes)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script"
        with suppress(SystemExit):  # so it ends when it is done
            flags = ["--tyro-write-completion", words[0], str(script)]
            tyro.cli(_one_of(kinds.values()), prog="spair", args=flags, config=options)
        return _print(_with_files(script.read_text()))


def _with_files(script: str) -> str:
    """tyro's script, which then also completes names of files where no flag or command fits, and takes what
    is told of a flag for one line."""
    lines = (
        line.replace("\\n", " ") if line.startswith("COMPLETION_SPEC = ") else line
        for line in script.splitlines()
    )
    script = "\n".join(lines)
    script = script.replace("complete -F ", "complete -o default -F ").replace(
        "complete --no-files", "complete"
    )
    return script.replace(
        '    matches+=("$completion")', '    [ -n "$completion" ] && matches+=("$completion")'
    )


def _one_of(kinds: Any) -> Any:
    return Union[tuple(kinds)]  # noqa: UP007


def _flags(name: str, command: Command) -> Any:
    """What tyro makes a subcommand of."""
    config = command.config
    if isinstance(config, type):
        return Annotated[config, tyro.conf.subcommand(name)]
    return Annotated[type(config), tyro.conf.subcommand(name, default=config)]


def _told(commands: Commands) -> dict[str, str]:
    return {name: command.__doc__ or "" for name, command in commands.items()}


def _help(text: str, commands: Mapping[str, str]) -> str:
    lines = "\n".join(f"    {name:<14} {told}" for name, told in commands.items())
    return text.format(commands=lines, exits=entry.EXITS)


def _print(text: str) -> int:
    print(text)
    return 0


def _version() -> str:
    try:
        return version("spair")
    except PackageNotFoundError:
        return "(not installed: pip install . makes it so)"


if __name__ == "__main__":
    main()
