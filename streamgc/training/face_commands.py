"""``streamgc train face-samples``, ``face-locator``, ``face`` and ``ship-face``: what says and paints what a face
does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamgc.training.call_samples import Cache
from streamgc.training.face_locator import LocatorTraining, train_locator
from streamgc.training.face_model import FaceTraining, train_face
from streamgc.training.face_samples import SampleRun, draw_samples
from streamgc.training.face_ship import load_face, ship_face
from streamgc.training.together import train_together

app = typer.Typer(help="Train and ship the face's networks.", no_args_is_help=True)

CacheFolder = Annotated[Path, typer.Option("--cache", help="Folder that 'train cache' wrote, with faces in it.")]
Samples = Annotated[Path, typer.Option(help="Folder of the samples.")]
Locator = Annotated[Path, typer.Option(help="Weights of the locator.")]
Minutes = Annotated[float, typer.Option(help="How long to train.")]
Processes = Annotated[int, typer.Option(help="Processes that work together; one a core.")]


@app.command("face-samples")
def train_face_samples(
    cache: CacheFolder = Path("runs/cache"),
    samples: Samples = Path("runs/face/samples"),
    model: Annotated[str, typer.Option(help="Call model that shows the faces.")] = "lite",
    count: Annotated[int, typer.Option(help="How many.")] = 16_000,
    seed: Annotated[int, typer.Option(help="Another draws others.")] = 0,
    processes: Processes = 2,
) -> None:
    """Draw what 'train face' reads: faces as they were sent, and as the call model shows them."""
    train_together(draw_samples, SampleRun(cache, model, samples, count, seed), processes)


@app.command("face-locator")
def train_face_locator(
    cache: CacheFolder = Path("runs/cache"),
    locator: Locator = Path("runs/face/locator.pt"),
    minutes: Minutes = 8.0,
) -> None:
    """Train what finds the face in a call's picture."""
    train_locator(Cache(cache), locator, LocatorTraining(minutes=minutes))


@app.command("face")
def train_face_networks(
    samples: Samples = Path("runs/face/samples"),
    run: Annotated[Path, typer.Option(help="Folder of checkpoints; a training found there goes on.")] = Path(
        "runs/face"
    ),
    minutes: Minutes = 20.0,
    start: Annotated[Path | None, typer.Option(help="Weights to start from when the run is new.")] = None,
    rate: Annotated[float, typer.Option(help="Learning rate; falls over the run.")] = 1.5e-3,
    processes: Processes = 2,
) -> None:
    """Train what says what eyes and mouth do."""
    settings = FaceTraining(minutes=minutes, rate=rate)
    train_together(train_face, (samples, run, settings, start), processes)


@app.command("ship-face")
def train_ship_face(
    cache: CacheFolder = Path("runs/cache"),
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint to ship.")] = Path("runs/face/checkpoint.pt"),
    locator: Locator = Path("runs/face/locator.pt"),
    samples: Annotated[
        Path | None, typer.Option(help="Samples to calibrate the numbers on; none: weights that have shipped.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder of the call model that gets them.")] = Path("engines/lite"),
) -> None:
    """Export the face's networks into a call model, and fit its tables to their numbers."""
    typer.echo(ship_face(load_face(checkpoint, locator, samples), Cache(cache), folder))
