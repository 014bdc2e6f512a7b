"""`streamgc evaluate scene` and `streamgc evaluate segmenter`, and `streamgc train segmenter`: what the command line
mounts."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from streamgc.errors import InputError
from streamgc.evaluation.scene import Reference, evaluate_scene, format_table, write_json
from streamgc.pipeline.segmenters import is_yolo, open_yolo
from streamgc.runtime.store import ModelStore
from streamgc.scene.framing import FramingSettings
from streamgc.scene.observer import SceneSettings, Segment
from streamgc.scene.policy import parse_policy
from streamgc.scene.segmenter import Segmenter

app = typer.Typer(no_args_is_help=True, help="Who is in the frame: measured, and trained.")

Model = Annotated[str, typer.Option(help="A model by name, or its folder; or YOLO-seg weights.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or int8.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")]


def open_segmenter(model: str, precision: str, size: tuple[int, int] | None = None) -> Segment:
    """The segmenter of a model, or YOLO weights, on one thread of the default backend; raises InputError, ModelError
    and EngineError."""
    if is_yolo(model):
        return open_yolo(model, threads=1)
    engine = ModelStore().open(model).load("segmenter", precision=precision, threads=1, size=size)  # type: ignore[arg-type]
    return Segmenter(engine, size)


@app.command("scene")
def scene_command(
    clips: Annotated[list[Path], typer.Argument(help="Video files.")],
    model: Model = "segmenter",
    precision: Precision = "fp32",
    reference: Annotated[Path | None, typer.Option(help="selfie_segmentation.tflite, to compare with.")] = None,
    preserve: Annotated[str, typer.Option(help="all, main, id:N or class names.")] = "all",
    framing: Annotated[bool, typer.Option(help="Follow people with a crop.")] = False,
    frames: int = 150,
    json_path: Json = None,
    overlay: Annotated[Path | None, typer.Option(help="Write an overlay video here.")] = None,
) -> None:
    """Flicker, lag, loss, leak, bytes and milliseconds on clips."""
    teacher: Reference | None = None
    if reference is not None:
        from streamgc.evaluation.person import PersonMask

        teacher = PersonMask(reference)
    settings = SceneSettings(policy=parse_policy(preserve), framing=FramingSettings(enabled=framing))
    segment = open_segmenter(model, precision, settings.size)
    rows = evaluate_scene(clips, segment, settings, teacher, json_path, overlay, frames=frames)
    typer.echo(format_table(rows))


@app.command("segmenter")
def truth_command(
    data: Annotated[Path, typer.Option(help="Folder with val/stills and val/masks.")],
    model: Model = "segmenter",
    precision: Precision = "fp32",
    composites: Annotated[int, typer.Option(min=1, help="Composites each of one, two and three people.")] = 80,
    passing: Annotated[int, typer.Option(min=1, help="Drawn clips of people who pass each other.")] = 10,
    framed: Annotated[int, typer.Option(min=0, help="Larger composites, cropped as a call does.")] = 40,
    json_path: Json = None,
) -> None:
    """Person IoU on stills with masks, and people found in composites of one, two and three."""
    from streamgc.evaluation.scene_passing import evaluate_passing
    from streamgc.evaluation.scene_truth import ValidationItems, evaluate_composites, evaluate_framed, evaluate_stills

    segment = open_segmenter(model, precision)
    stills = [evaluate_stills(segment, data, name) for name in ("ccp", "human_seg_vikram")]
    items = ValidationItems(data)
    mixed = [evaluate_composites(segment, items, people, composites) for people in (1, 2, 3)]
    cropped = [evaluate_framed(segment, items, people, framed) for people in (1, 2) if framed]
    moving = evaluate_passing(segment, items, passing)
    for result in (*stills, *mixed, *cropped, moving):
        typer.echo(result)
    if json_path is not None:
        content = {
            "stills": [asdict(s) for s in stills],
            "composites": [asdict(m) for m in mixed],
            "framed": [asdict(f) for f in cropped],
        }
        write_json(json_path, {**content, "passing": asdict(moving)})


def train_command(
    data: Path,
    teachers: Path,
    run: Path,
    *,
    minutes: float = 35.0,
    start: Path | None = None,
    doubt: Path | None = None,
    rate: float = 1.5e-3,
    processes: int = 2,
    precision: str = "auto",
    ship: Path | None = None,
    blend: Path | None = None,
) -> None:
    """Train the segmenter by the clock and, if asked, export it."""
    from streamgc.training.segmenter import PRECISIONS, SegmenterSettings, person_iou, train_segmenter
    from streamgc.training.segmenter_ship import load_blend, ship_segmenter

    if precision != "auto" and precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: one of auto, {', '.join(PRECISIONS)}")
    settings = SegmenterSettings(
        data,
        teachers,
        run,
        start,
        doubt,
        minutes,
        rate=rate,
        precision=precision,  # type: ignore[arg-type]
        processes=processes,
    )
    checkpoint = train_segmenter(settings)
    network, _ = load_blend(checkpoint, blend)
    score = person_iou(network, data, "ccp")
    typer.echo(f"person IoU on CCP validation: {score:.3f}")
    if ship is not None:
        ship_segmenter(checkpoint, run / "cache", ship, {"person IoU, CCP validation": round(score, 3)}, blend=blend)
