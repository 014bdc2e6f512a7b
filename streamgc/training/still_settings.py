"""Settings of a still-image training run: one frozen dataclass, readable from TOML."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from streamgc.errors import TrainingError
from streamgc.networks.still_spec import Family, StillSpec, Task

Mode = Literal["gc", "gc-d", "sc-ri", "sc-rb", "mse", "aedc", "pix2pix"]
MODES: tuple[Mode, ...] = ("gc", "gc-d", "sc-ri", "sc-rb", "mse", "aedc", "pix2pix")
Layout = Literal["images", "labelled", "cityscapes", "clips"]
PerceptualForm = Literal["pix2pixhd", "lpips"]


@dataclass(frozen=True)
class StillTraining:
    """One run. The defaults are the paper's where it says something; losses are those of its eq. (4) and pix2pixHD.

    ``mode``: gc; gc-d (labels to D only); sc-ri and sc-rb (random instances or a random box kept); mse (same networks,
    MSE only); aedc (same networks, MS-SSIM, C = 4 in the paper); pix2pix (from labels alone).
    """

    mode: Mode = "gc"
    family: Family = "lite"
    channels: int = 8
    nested: tuple[int, ...] = ()
    """Channel counts drawn during training, each a beginning of the next; empty: always all."""
    classes: int = 0
    """K of the label maps; 0 where there are none."""
    width: float = 1.0
    discriminator_filters: int = 64
    noise: int = 0
    blocks: int = 9

    steps: int = 150_000
    batch: int = 1
    crop: tuple[int, int] = (256, 256)
    """(height, width) of a training picture; multiples of 16."""
    rate: float = 2e-4
    falling: float = 0.0
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    clip: float = 0.0
    """Largest norm of a step's gradient, of each network; 0: none. Without it a high rate drives tanh into saturation,
    from which nothing comes back."""
    seed: int = 1
    freeze_at: float = 0.5
    """Share of the steps after which the normalisation statistics are frozen; 1: never."""

    gan: float = 1.0
    gan_from: float = 0.0
    """Share of the steps before D and its losses join."""
    mse: float = 10.0
    feature_matching: float = 10.0
    perceptual: float = 10.0
    perceptual_form: PerceptualForm = "pix2pixhd"
    """pix2pixhd: weighted L1 of trunk features; lpips: the trunk's learned perceptual distance."""
    perceptual_crop: int = 0
    """Side of the random square the perceptual loss looks at; 0: the whole crop. It costs more than all else."""
    perceptual_scales: tuple[int, ...] = (1,)
    """The perceptual loss looks at pictures shrunk by these factors, one a step in turn, so that the same square covers
    more of the crop."""
    beta: float = 0.0
    """Weight of the entropy term, per bit and pixel, against static per-channel frequencies."""

    linear_start: bool = False
    """Lite family: begin from the best linear codec of the data, found in closed form (see `still_start`)."""

    bf16: bool = False
    average: float = 0.0
    """Decay of the running mean of the weights that is kept beside them; 0: none."""
    checkpoint_steps: int = 500
    threads: int = 0
    """CPU threads; 0: torch's choice."""

    layout: Layout = "images"
    open_images_rules: bool = False
    """For folders of images: long side to 768, only what is downscaled ≥ 1.25×, very saturated pictures dropped."""
    kept_share: float = 0.25
    """Share of the instances that sc-ri keeps."""

    def __post_init__(self) -> None:
        """Raises TrainingError for what cannot be trained."""
        for name, problem in (
            ("crop", any(side < 32 or side % 16 for side in self.crop)),
            (
                "nested",
                bool(self.nested)
                and (self.nested[-1] != self.channels or list(self.nested) != sorted(set(self.nested))),
            ),
            ("perceptual_scales", not self.perceptual_scales or min(self.perceptual_scales) < 1),
            ("channels", self.channels < 1),
            ("steps, batch and rate", self.steps < 1 or self.batch < 1 or self.rate <= 0),
            ("classes", self.needs_labels and self.classes < 1),
            ("mode", self.mode not in MODES),
        ):
            if problem:
                raise TrainingError(f"settings: {name} cannot be {_shown(self, name)}")

    @property
    def task(self) -> Task:
        """What the networks are for."""
        if self.mode in ("sc-ri", "sc-rb"):
            return "sc"
        return "labels" if self.mode == "pix2pix" else "gc"

    @property
    def needs_labels(self) -> bool:
        """Whether label maps are read."""
        return self.mode in ("gc-d", "sc-ri", "sc-rb", "pix2pix")

    @property
    def adversarial(self) -> bool:
        """Whether there is a D."""
        return self.mode not in ("mse", "aedc") and self.gan > 0

    @property
    def spec(self) -> StillSpec:
        """The networks these settings train."""
        classes = self.classes if self.task != "gc" else 0
        return StillSpec(self.family, self.task, self.channels, classes, self.width, self.noise, self.blocks)

    @property
    def discriminator_planes(self) -> int:
        """Label planes D sees."""
        return self.classes + 1 if self.needs_labels else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint holds them."""
        built: dict[str, Any] = msgspec.to_builtins(asdict(self))
        return built


def _shown(settings: StillTraining, name: str) -> str:
    if name == "steps, batch and rate":
        return f"{settings.steps}, {settings.batch} and {settings.rate}"
    extra = f" with mode {settings.mode}" if name == "classes" else ""
    return f"{getattr(settings, name)}{extra}"


def read_settings(path: Path | None, **changes: Any) -> StillTraining:
    """Settings of a TOML file, changed by keyword. Raises TrainingError: unreadable, unknown or wrong."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise TrainingError(f"cannot read {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TrainingError(f"{path} is no TOML: {error}") from None
    return settings_of({**values, **{key: value for key, value in changes.items() if value is not None}})


def settings_of(values: dict[str, Any]) -> StillTraining:
    """Settings of plain values. Raises TrainingError for an unknown key, a wrong type or a value that cannot be."""
    unknown = set(values) - set(StillTraining.__dataclass_fields__)
    if unknown:
        raise TrainingError(f"settings: unknown {', '.join(sorted(unknown))}")
    try:
        return msgspec.convert(values, StillTraining)
    except msgspec.ValidationError as error:
        raise TrainingError(f"settings: {error}") from None
