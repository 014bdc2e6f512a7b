#!/usr/bin/env python3
"""Everything a GPU machine can tell about the engines, in one report.

    python engines/gpu_kit.py [--models lite] [--report gpu_report.md] [--no-install] [--no-paper] [--tensorrt]

Installs streamgc with TensorRT-RTX (and TensorRT with --tensorrt) into the running Python, builds every network that
ships, and the paper's SC at full width with random weights; compares each with the CPU, times it, says what each layer
became, runs the tests marked ``gpu`` and writes one Markdown file. A step that fails is written down with its output,
and the next one goes on. Run it in a virtual environment.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("tensorrt", "tensorrt-rtx")

PROFILE = """
from streamgc.runtime.commands import run_times
from streamgc.runtime.samples import chained_feeds, synthetic_pictures
from streamgc.runtime.store import ModelStore
from pathlib import Path
import sys, tempfile
backend, name = sys.argv[1:3]
model = ModelStore().open(name)
print("network size precision load_runs p50_ms p95_ms worst_ms")
sizes = [tuple(map(int, word.split("x"))) for word in sys.argv[3].split(",")]
with tempfile.TemporaryDirectory() as cache:
    for size in sizes:
        feeds = chained_feeds(model, synthetic_pictures(size, 1))
        for role in model.roles:
            for precision in ("fp32", "fp16", "int8"):
                if not model.has(role, precision):
                    continue
                with model.load(role, backend=backend, precision=precision, size=size, cache=Path(cache)) as engine:
                    times = run_times(engine, feeds[role][0], seconds=3.0, least=200)
                p50, p95 = times[len(times) // 2], times[int(0.95 * len(times))]
                shape = f"{size[1]}x{size[0]}"
                print(role, shape, engine.precision, len(times), f"{p50:.3f} {p95:.3f} {times[-1]:.3f}", flush=True)
"""
BUILD = """
import sys
from pathlib import Path
from streamgc.runtime.commands import engines_build
from streamgc.runtime.store import ModelStore
from streamgc.runtime.plans import ShapeProfile
from streamgc.runtime.tensorrt import inspect_plan
backend, name, precision, folder, size = sys.argv[1:6]
model = ModelStore().open(name)
roles = [role for role in model.roles if model.has(role, precision)]
profile = ShapeProfile.fixed(tuple(map(int, size.split("x")))) if size else None
options = {"backend": backend, "precision": precision, "profile": profile, "out": Path(folder), "layers": True}
for path in engines_build(name, roles=roles, **options) if roles else []:
    print(path, path.stat().st_size)
    print(inspect_plan(path))
"""
VERIFY = """
import sys
from streamgc.runtime.commands import engines_verify
from streamgc.training.torch_reference import torch_results
backend, name, size = sys.argv[1:4]
height, width = map(int, size.split("x"))
engines_verify(name, backends=[backend, "openvino"], size=(height, width), reference=torch_results, against="torch")
"""
DOCTOR = "from streamgc.runtime.doctor import doctor; doctor()"


class Report:
    """A Markdown file that is complete after every step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = [f"# GPU report\n\n{time.strftime('%Y-%m-%d %H:%M:%S %Z')}\n"]
        self.failed: list[str] = []

    def step(self, title: str, command: list[str]) -> bool:
        """Run a command and write its title, duration, result and output down. True where it succeeded."""
        print(f"== {title}", flush=True)
        start = time.perf_counter()
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, cwd=ROOT, timeout=3600, env={**os.environ, "COLUMNS": "160"}
            )
            code, output = result.returncode, result.stdout + result.stderr
        except (OSError, subprocess.TimeoutExpired) as error:
            code, output = 1, str(error)
        verdict = "ok" if code == 0 else f"FAILED ({code})"
        if code != 0:
            self.failed.append(title)
        print(f"   {verdict}, {time.perf_counter() - start:.0f} s", flush=True)
        self.parts.append(f"## {title}: {verdict}, {time.perf_counter() - start:.0f} s\n\n```\n{output.strip()}\n```\n")
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_text("\n".join(self.parts))
        os.replace(temporary, self.path)
        return code == 0


def _build_verify_time(
    report: Report, backend: str, model: str, plans: Path, verified: str, profile: str, timed: str
) -> None:
    """The steps of one model on one backend; sizes are HxW."""
    python, name = [sys.executable, "-c"], Path(model).name
    for precision in ("fp32", "fp16", "int8"):
        title = f"build {name} {precision} with {backend}"
        report.step(title, [*python, BUILD, backend, model, precision, str(plans), profile])
    report.step(f"verify {name} on {backend}", [*python, VERIFY, backend, model, verified])
    report.step(f"time {name} on {backend}", [*python, PROFILE, backend, model, timed])


def main() -> int:
    """Run all steps; exit code 1 where any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="lite,segmenter,room,still")
    parser.add_argument("--no-paper", action="store_true", help="without the paper's networks, which take several GB")
    parser.add_argument("--report", type=Path, default=Path("gpu_report.md"))
    parser.add_argument("--plans", type=Path, default=Path("gpu_plans"), help="folder for the plans that are built")
    parser.add_argument("--no-install", action="store_true")
    parser.add_argument("--tensorrt", action="store_true", help="full TensorRT too; its package downloads from NVIDIA")
    options = parser.parse_args()
    report = Report(options.report.resolve())
    backends = BACKENDS if options.tensorrt else BACKENDS[1:]
    python = [sys.executable, "-c"]
    report.step("GPU and driver", ["nvidia-smi"])
    if not options.no_install:
        extras = ",".join(["dev", *backends])
        report.step("install", [sys.executable, "-m", "pip", "install", "-e", f".[{extras}]"])
    report.step("packages", [sys.executable, "-m", "pip", "list"])
    report.step("doctor", [*python, DOCTOR])
    models = dict.fromkeys(options.models.split(","), ("256x256", "", "256x256,384x384,512x512"))
    if not options.no_paper:
        folder = str(options.plans.resolve() / "paper-sc")
        export = ["export", "paper-sc", "--split", "--precision", "fp16", "--size", "256x128", "--frames", "2"]
        report.step("export paper-sc", [sys.executable, "-m", "streamgc", "engines", *export, "--out", folder])
        models[folder] = ("512x1024", "512x1024", "512x1024")
    for backend, (model, sizes) in itertools.product(backends, models.items()):
        _build_verify_time(report, backend, model, options.plans.resolve(), *sizes)
    report.step("tests", [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "tests"])
    print(
        f"report: {report.path}" + (f"; failed: {', '.join(report.failed)}" if report.failed else "; all steps passed")
    )
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
