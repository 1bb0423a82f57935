"""What the paper reports (ICCV 2021, arXiv 2108.08617): its test sets and tables, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

Measures = dict[str, float]
"""PSNR (dB) and SSIM, or an error in Lab by region, or the BCE of a mask."""

RAIN, RAINDROP, SHADOW, BLUR = "rain", "raindrop", "shadow", "blur"


@dataclass(frozen=True)
class TestSet:
    """A test set: its task, and how many pictures it has (None: not known)."""

    task: str
    pictures: int | None


TEST_SETS = {
    "Test100": TestSet(RAIN, 100),
    "Rain100H": TestSet(RAIN, 100),
    "Rain100L": TestSet(RAIN, 100),
    "Test2800": TestSet(RAIN, 2800),
    "Test1200": TestSet(RAIN, 1200),
    "Rain100H-original": TestSet(RAIN, 100),
    "Rain100L-original": TestSet(RAIN, 100),
    "SPA": TestSet(RAIN, 1000),
    "AGAN-a": TestSet(RAINDROP, 58),
    "AGAN-b": TestSet(RAINDROP, None),
    "ISTD": TestSet(SHADOW, 540),
    "GoPro": TestSet(BLUR, 1111),
    "GoPro-gamma": TestSet(BLUR, 1111),
    "HIDE": TestSet(BLUR, 2025),
    "RealBlur-J": TestSet(BLUR, 980),
}


@dataclass(frozen=True)
class Row:
    """What the paper reports of a set: its own figures, and those of `others` beside them."""

    set: str
    paper: Measures
    others: dict[str, Measures] = field(default_factory=dict)
    trained_on: str = ""

    @property
    def label(self) -> str:
        """The set, and the training data where rows of a table differ in it."""
        return f"{self.set}, trained on {self.trained_on}" if self.trained_on else self.set


@dataclass(frozen=True)
class Table:
    """A table of one model (or one for each row) that takes away `tasks`."""

    name: str
    title: str
    tasks: frozenset[str]
    rows: tuple[Row, ...]
    mean: Row | None = None
    note: str = ""


def score(psnr: float, ssim: float | None = None) -> Measures:
    """A row's figures."""
    return {"psnr": psnr} if ssim is None else {"psnr": psnr, "ssim": ssim}


TABLES = (
    Table(
        "1",
        "rain streaks, one model trained on Rain13K; on Y",
        frozenset({RAIN}),
        (
            Row("Test100", score(30.35, 0.909)),
            Row("Rain100H", score(30.95, 0.892)),
            Row("Rain100L", score(36.93, 0.969)),
            Row("Test2800", score(33.34, 0.936)),
            Row("Test1200", score(33.04, 0.922)),
        ),
        Row("mean", score(32.91, 0.926), {"MSPFN": score(30.75, 0.903)}),
    ),
    Table(
        "2",
        "rain streaks, each set by a model trained on its own training part; on Y",
        frozenset({RAIN}),
        (
            Row("SPA", score(44.10, 0.9872), {"RCDNet": score(41.47, 0.9834)}),
            Row("Rain100H-original", score(31.69, 0.9201), {"RCDNet": score(31.28, 0.9093)}),
        ),
    ),
    Table(
        "3",
        "raindrops; on Y",
        frozenset({RAINDROP}),
        (Row("AGAN-a", score(32.73, 0.9410), {"Quan": score(31.44, 0.9263)}),),
    ),
    Table(
        "4",
        "shadows; mean absolute error in CIE Lab at 256x256, which the paper calls RMSE (lower is better)",
        frozenset({SHADOW}),
        (
            Row(
                "ISTD",
                {"S": 8.05, "NS": 5.47, "all": 5.88},
                {"the paper's input": {"S": 32.12, "NS": 7.19, "all": 10.97}},
            ),
        ),
        note="over the pixels of all pictures together; S is the set's mask (the pair's, where it has none)",
    ),
    Table(
        "5",
        "motion blur; on RGB",
        frozenset({BLUR}),
        (
            Row("GoPro", score(32.06, 0.953), trained_on="GoPro"),
            Row("HIDE", score(30.29, 0.931), trained_on="GoPro"),
            Row("RealBlur-J", score(28.81, 0.875), trained_on="GoPro"),
            Row("RealBlur-J", score(31.82), trained_on="RealBlur-J"),
        ),
        note="RealBlur-J: the paper's pictures were aligned by its authors' protocol, ours are not",
    ),
    Table(
        "S1",
        "joint model of rain streaks and raindrops: rain streaks; on Y",
        frozenset({RAIN, RAINDROP}),
        (
            Row("Test100", score(30.33, 0.909)),
            Row("Rain100H", score(30.81, 0.892)),
            Row("Rain100L", score(36.39, 0.964)),
            Row("Test2800", score(33.34, 0.936)),
            Row("Test1200", score(33.10, 0.925)),
        ),
    ),
    Table(
        "S2",
        "joint model of rain streaks and raindrops: raindrops; on Y",
        frozenset({RAIN, RAINDROP}),
        (Row("AGAN-a", score(32.59, 0.935)),),
    ),
)

ABLATIONS = {
    1: {"AGAN-a": score(30.72), "GoPro": score(30.84)},
    2: {"AGAN-a": score(31.48), "GoPro": score(31.55)},
    3: {"AGAN-a": score(31.83), "GoPro": score(31.62)},
    4: {"AGAN-a": score(32.19), "GoPro": score(31.81)},
    5: {"AGAN-a": score(32.73), "GoPro": score(32.06)},
}
"""Table 6: PSNR of Net1 to Net5."""

LOCALIZER_EPOCHS = {
    20: {"bce": 0.0840, "psnr": 32.08},
    50: {"bce": 0.0606, "psnr": 32.67},
    70: {"bce": 0.0595, "psnr": 32.73},
    90: {"bce": 0.0592, "psnr": 32.73},
}
"""Table S3: the mask's BCE and the PSNR on AGAN-a, by Net_L's epochs."""
