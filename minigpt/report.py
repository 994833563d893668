"""What a run shows and leaves behind: a line of progress, metrics.jsonl, results.json and pictures; and what a program that was
stopped finds again of them: its trainings (earlier_runs) or its stages (Stages)."""
import json
import os
import sys
import time
from pathlib import Path

from .settings import UserError


def next_free(folder):
    """folder-1, folder-2, ...: the first that is not there."""
    return next(path for n in range(1, sys.maxsize) if not (path := Path(f"{folder}-{n}")).exists())


def prepare_folder(folder):
    """Make the folder that receives a run, and find out now, not after an hour, whether it can be written."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(f"nothing can be written to {folder} ({error.strerror}): choose another --out") from None
    return folder


def write_text(path, text):
    """Write a text file, whole or not at all."""
    part = Path(path).with_name(Path(path).name + ".part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")      # a file name may be no text
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}): free some space or choose another --out") from None


def write_results(folder, results):
    """results.json: flat names and values."""
    write_text(Path(folder) / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def earlier_runs(folder, results):
    """The list `runs` in results.json, where an interrupted program left trainings of the same text and settings.

    results: what has to be alike, as results.json has it; "kernels" may differ. Raises UserError where other things do.
    """
    try:
        earlier = json.loads(Path(folder, "results.json").read_text(encoding="utf-8"))
        found, runs = {name: earlier[name] for name in results if name != "kernels"}, list(earlier["runs"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        found, runs = None, []
    if found is None or not found.items() <= results.items():
        raise UserError(f"{folder} holds other results than those of this text and these settings: choose another --out")
    return runs


class Stages:
    """What the folder of a run of several stages remembers: settings.json, with what was asked for; figures.json, with
    {stage: {name: figure}}, "seconds" among them; and results.json, the same in flat names."""

    def __init__(self, folder):
        self.folder, self.path = Path(folder), Path(folder) / "figures.json"

    @property
    def figures(self):
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}

    @property
    def seconds(self):
        """How long each stage took that is done."""
        return {stage: of["seconds"] for stage, of in self.figures.items()}

    def add(self, stage, figures):
        known = self.figures | {stage: figures}
        write_text(self.path, json.dumps(known, indent=1) + "\n")
        write_results(self.folder, {f"{name}.{key}": value for name, of in known.items() for key, value in of.items()})

    def check(self, settings):
        """A folder holds one run: raises UserError where its settings, a dict, were others before."""
        path = self.folder / "settings.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else settings
        for name, value in settings.items():
            if before.get(name) != value:
                raise UserError(f"{self.folder} holds a run with {name} {before.get(name)}, not {value}: give the same "
                                "settings to go on with it, or choose another --out")
        write_text(path, json.dumps(settings, indent=1) + "\n")


class Metrics:
    """metrics.jsonl: one JSON object a line, each with its `step`. A resumed run drops what lies behind its step."""

    def __init__(self, folder, first_step=0):
        self.path = prepare_folder(folder) / "metrics.jsonl"
        self.records = [r for r in read_metrics(self.path) if r["step"] <= first_step] if first_step else []
        write_text(self.path, "".join(json.dumps(r) + "\n" for r in self.records))

    def add(self, **record):
        self.records.append(record)
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(f"{self.path} can't be written ({error.strerror}): free some space") from None


def read_metrics(path):
    """The records of a metrics.jsonl; lines that are not whole are left out, as a kill may leave one."""
    records = []
    text = Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).exists() else ""
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


class Progress:
    """One line that moves on a terminal (tqdm, where installed); elsewhere a line each twentieth of the way."""

    def __init__(self, steps, first_step=0, stream=sys.stderr):
        self.steps, self.first_step, self.stream = steps, first_step, stream
        self.begin, self.bar, self.done = time.perf_counter(), None, first_step
        if stream.isatty():
            try:
                from tqdm import tqdm
                self.bar = tqdm(total=steps, initial=first_step, file=stream, unit="step", dynamic_ncols=True)
            except ImportError:
                print("no progress bar: pip install tqdm to get one", file=stream)

    def update(self, step, text):
        """step: how many are done; text: what to show beside it."""
        if self.bar is not None:
            self.bar.update(step - self.done)
            self.bar.set_postfix_str(text)
        elif step * 20 // self.steps > self.done * 20 // self.steps:
            seconds = time.perf_counter() - self.begin
            left = seconds / (step - self.first_step) * (self.steps - step)
            print(f"step {step}/{self.steps}  {text}  {left:.0f} s left", file=self.stream, flush=True)
        self.done = step

    def close(self):
        if self.bar is not None:
            self.bar.close()


def save_picture(path, size, draw):
    """A PNG file of `size` inches (across, down), drawn by draw(figure) on a figure of matplotlib's. Returns None, or a
    sentence that says why there is none."""
    name = Path(path).name
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        return f"no {name}: pip install matplotlib to get it"
    figure = plt.figure(figsize=size, constrained_layout=True)
    try:
        draw(figure)
        figure.savefig(path, dpi=120)
    except OSError as error:
        return f"no {name}: it can't be written ({error.strerror})"
    finally:
        plt.close(figure)
    return None


def plot_losses(folder, title, lines=None, unit="character"):
    """loss.png from metrics.jsonl: losses over tokens. Returns None, or a sentence that says why there is none.

    lines: {label: loss}, other models' losses to compare with, drawn across. unit: what a token is.
    """
    million = [(r["tokens"] / 1e6, r) for r in read_metrics(Path(folder) / "metrics.jsonl")]
    return save_picture(Path(folder) / "loss.png", (7, 4.5), lambda figure: draw_losses(figure, million, title, lines, unit))


def draw_losses(figure, million, title, lines, unit):
    axes = figure.add_subplot()
    axes.plot([x for x, r in million], [r["train_loss"] for x, r in million], color="0.7", lw=0.8, label="training")
    seen = [(x, r["val_loss"]) for x, r in million if r["val_loss"] is not None]
    axes.plot([x for x, _ in seen], [y for _, y in seen], "o-", ms=3, label="validation")
    for label, y in (lines or {}).items():
        axes.axhline(y, color="0.3", lw=1, ls="--")
        axes.annotate(f"{label}\n{y:.3f}", (1, y), xycoords=("axes fraction", "data"), textcoords="offset points",
                      xytext=(4, 0), va="center")                                       # outside, where no curve runs
    if seen:
        (x, end), (low, high) = seen[-1], axes.get_ylim()
        below = any(0 < y - end < 0.1 * (high - low) for y in (lines or {}).values())   # a line is just above the end
        axes.annotate(f"{end:.3f}", (x, end), textcoords="offset points", xytext=(-4, -14 if below else 8), ha="right")
    axes.set_title(title.encode("utf-8", "backslashreplace").decode(), parse_math=False)     # a file name may have $
    axes.set(xlabel="training tokens seen, million", ylabel=f"loss, nats a {unit}")
    axes.grid(alpha=0.3)
    axes.legend()
