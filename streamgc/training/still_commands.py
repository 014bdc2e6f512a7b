"""``streamgc train gc|gc-d|sc|mse|aedc|pix2pix`` and ``streamgc train ship-still``.

Several processes or machines: ``torchrun --nproc-per-node N -m streamgc train gc …``; the batch is shared out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from rich.console import Console

from streamgc.errors import TrainingError
from streamgc.runtime.store import ModelStore
from streamgc.scene.labels import Label
from streamgc.scene.segmenter import Segmenter
from streamgc.training.still_data import open_source
from streamgc.training.still_labels import write_labelled
from streamgc.training.still_model import StillTrainer
from streamgc.training.still_settings import Mode, read_settings
from streamgc.training.still_ship import load_trained, ship_still

app = typer.Typer(help="Train and ship still-image models.", no_args_is_help=True)

Data = Annotated[list[Path], typer.Option("--data", help="Folder of training data; may be given several times.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the run; a run that is there goes on.")]
Toml = Annotated[Path | None, typer.Option("--settings", help="TOML file with any of the settings.")]
Family = Annotated[str | None, typer.Option(help="lite or paper.")]
Layout = Annotated[str | None, typer.Option(help="images, labelled, cityscapes or clips.")]
Classes = Annotated[int | None, typer.Option(help="Classes of the label maps (Cityscapes: 34).")]
Channels = Annotated[int | None, typer.Option(help="C.")]
Steps = Annotated[int | None, typer.Option(help="Steps in all.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, …; auto takes a GPU that is there.")]
Start = Annotated[Path | None, typer.Option(help="Shipped weights (safetensors) that a new run begins from.")]
Vgg19 = Annotated[Path | None, typer.Option(help="torchvision's VGG19 weights; without, the VGG16 of stlpips-pytorch.")]


def require_device(name: str) -> None:
    """Raises TrainingError where torch has no such device."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch that was built without CUDA
        raise TrainingError(f"--device {name}: {str(error).splitlines()[0]}") from None


def train_still(
    mode: Mode,
    data: list[Path],
    out: Path,
    *,
    settings: Path | None = None,
    device: str = "auto",
    vgg19: Path | None = None,
    start: Path | None = None,
    **changes: object,
) -> None:
    """Train a mode to its last step, going on from the folder's checkpoint. Raises TrainingError.

    ``changes`` are settings by name; None leaves what the file or the defaults say.
    """
    distributed = dist.is_torchelastic_launched()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if distributed:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        if device == "cuda":
            device = f"cuda:{dist.get_node_local_rank()}"
            torch.cuda.set_device(device)
    try:
        chosen = read_settings(settings, mode=mode, **changes)
        source = open_source(chosen.layout, data, open_images_rules=chosen.open_images_rules)
        require_device(device)
        trainer = StillTrainer(chosen, source, out, device=device, vgg19=vgg19, start=start)
        try:
            trainer.train()
        finally:
            trainer.close()
    finally:
        if distributed:
            dist.destroy_process_group()


def _add(name: str, mode: Mode, text: str) -> None:
    def command(
        data: Data,
        out: Out,
        settings: Toml = None,
        family: Family = None,
        layout: Layout = None,
        classes: Classes = None,
        channels: Channels = None,
        steps: Steps = None,
        device: Device = "auto",
        vgg19: Vgg19 = None,
        start: Start = None,
    ) -> None:
        train_still(
            mode,
            data,
            out,
            settings=settings,
            device=device,
            vgg19=vgg19,
            start=start,
            family=family,
            layout=layout,
            classes=classes,
            channels=channels,
            steps=steps,
        )

    app.command(name, help=text)(command)


_add("gc", "gc", "Generative compression of whole pictures.")
_add("gc-d", "gc-d", "GC(D+): the discriminator sees the label map.")
_add("sc-ri", "sc-ri", "Selective compression, random instances kept.")
_add("sc-rb", "sc-rb", "Selective compression, a random box kept.")
_add("mse", "mse", "Baseline: the same networks, mean squared error only.")
_add("aedc", "aedc", "Baseline: the same networks, MS-SSIM only.")
_add("pix2pix", "pix2pix", "Baseline: the picture from its label map alone (pix2pixHD).")


@app.command("sc")
def selective(
    data: Data,
    out: Out,
    kept: Annotated[str, typer.Option(help="What training keeps: instances (RI) or box (RB).")] = "instances",
    settings: Toml = None,
    family: Family = None,
    layout: Layout = None,
    classes: Classes = None,
    channels: Channels = None,
    steps: Steps = None,
    device: Device = "auto",
    vgg19: Vgg19 = None,
    start: Start = None,
) -> None:
    """Selective compression (SC), by random instances or a random box."""
    modes: dict[str, Mode] = {"instances": "sc-ri", "box": "sc-rb"}
    if kept not in modes:
        raise TrainingError(f"--kept is instances or box, not {kept}")
    sizes = {"family": family, "layout": layout, "classes": classes, "channels": channels, "steps": steps}
    train_still(modes[kept], data, out, settings=settings, device=device, vgg19=vgg19, start=start, **sizes)


@app.command("labels")
def labels(
    images: Annotated[list[Path], typer.Argument(help="Folders of images.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for images/, labels/ and instances/.")],
    masks: Annotated[list[Path] | None, typer.Option(help="Folders of person masks, one for each.")] = None,
    side: Annotated[int, typer.Option(help="Bring the longer side to so many pixels; 0: leave it.")] = 0,
) -> None:
    """Label maps by the shipped segmenter, for images that have none: data for gc-d, sc, pix2pix, miou, selective."""
    engine = ModelStore().open("segmenter").load("segmenter")
    try:
        count = write_labelled(images, out, Segmenter(engine), masks=masks or (), side=side)
    finally:
        engine.close()
    Console().print(f"{count} images with {len(Label)} classes in {out}")


@app.command("ship-still")
def ship(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Model folder to write, engines/still say.")],
    name: Annotated[str, typer.Option(help="The model's name.")] = "still",
    sources: Annotated[str, typer.Option(help="What it was trained on, for the card.")] = "",
    licence: Annotated[Path | None, typer.Option(help="Text of the weights' licence.")] = None,
    history: Annotated[str, typer.Option(help="What the run began from, for the card.")] = "",
) -> None:
    """Export a run to ONNX, fit its tables on the data, and describe it."""
    try:
        text = "" if licence is None else licence.read_text(encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"cannot read {licence}: {error.strerror}") from None
    _, settings, _ = load_trained(run / "checkpoint.pt")
    source = open_source(settings.layout, data, open_images_rules=settings.open_images_rules)
    model = ship_still(run / "checkpoint.pt", source, out, name=name, data=sources, licence=text, history=history)
    size = sum(path.stat().st_size for path in out.iterdir())
    Console().print(f"{model.name}: {size / 1e6:.1f} MB in {out}, model hash {model.hash.hex()}")
