"""A Transformer reads handwritten digits: ViT, and beside it a small convolutional network, its ancestor.

    pip install '.[digits]' && python examples/see_digits.py            half a minute on two cores
    python examples/see_digits.py --shift 0 --degrees 0                 without augmentation: what it is worth
    python examples/see_digits.py --data my_pictures                    a folder of PNG files by class, or an .npz file

The digits are scikit-learn's, 1797 real ones of 8 x 8 pixels. A fifth of each class, drawn by the seed, is held out and
measures: how many of them does a network name rightly? Both networks learn from the same pictures in the same order, each
picture turned and moved a little, anew each time. attention.png shows which parts of a picture the ViT's answer was made
from (attention rollout, models/vit.py), and what it got wrong.
"""
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from minigpt import no_grad
from minigpt.data import held_out, load_pictures, moved, sequence_seeds
from minigpt.kernels import cpu
from minigpt.models.convnet import ConvNet, ConvNetConfig
from minigpt.models.vit import ViT, ViTConfig
from minigpt.ops import softmax
from minigpt.report import next_free, prepare_folder, save_picture, write_results
from minigpt.settings import UserError, program
from minigpt.train import TrainSettings, fit


@dataclass(frozen=True)
class Settings:
    data: str | None = None         # a folder of PNG files by class, or an .npz file (none: scikit-learn's digits)
    out: str | None = None          # folder for results.json and attention.png (none: the next free runs/digits-N)
    held_out: float = 0.2           # share of each class to measure by
    steps: int = 800                # updates of each network
    batch_size: int = 64            # pictures in an update
    learning_rate: float = 0.01     # highest learning rate, of Muon
    shift: float = 1.0              # pixels by which a picture is moved at most, in each direction
    degrees: float = 15.0           # angle by which a picture is turned at most
    patch: int = 2                  # ViT: rows and columns of a patch
    layers: int = 4                 # ViT: blocks
    heads: int = 4                  # ViT: attention heads in a block
    width: int = 64                 # ViT: numbers in the residual stream
    dropout: float = 0.0            # ViT: share of numbers dropped while training
    filters: int = 16               # convolutional network: shapes that its first layer looks for
    hidden: int = 64                # convolutional network: width of the layer before the last
    workers: int = 0                # worker threads (0: one a core)
    seed: int = 1                   # of what is held out, the parameters, the batches and dropout

    presets: ClassVar[dict[str, dict]] = {"quick": {"steps": 150}}

    def __post_init__(self):
        self.recipe()                                       # checks what it shares with other trainings
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out is {self.held_out}, but has to be above 0 and below 1")
        if not (0 <= self.shift < 1000 and 0 <= self.degrees <= 180):
            raise UserError(f"shift is {self.shift} and degrees is {self.degrees}, but they have to be 0 at least, and degrees "
                            "180 at most")

    def recipe(self):
        """The settings of a network's training. Pictures are few numbers: a worker takes 32 of them at a time."""
        return TrainSettings(steps=self.steps, batch_size=self.batch_size, micro_batch=32, optimizer="muon", warm_up=20,
                             learning_rate=self.learning_rate, last_learning_rate=self.learning_rate / 50, hold=0.4,
                             weight_decay=0.0, beta2=0.95, workers=self.workers, seed=self.seed)


def main(settings):
    pictures = load_pictures(settings.data)
    learn, measure = held_out(pictures.labels, settings.held_out, settings.seed)
    height, width = pictures.images.shape[1:]
    shape = {"image_height": height, "image_width": width, "classes": len(pictures.names)}
    vit = ViT(ViTConfig(**shape, patch=settings.patch, layers=settings.layers, heads=settings.heads, width=settings.width,
                        dropout=settings.dropout), settings.seed)
    convnet = ConvNet(ConvNetConfig(**shape, filters=settings.filters, hidden=settings.hidden), settings.seed)
    out = prepare_folder(settings.out or next_free("runs/digits"))
    print(f"pictures  {pictures.source}; {len(learn)} to learn from, {len(measure)} to measure by\nkernels   {cpu.status()}\n"
          f"training  {settings.steps} steps of {settings.batch_size} pictures for each network; results in {out}", flush=True)
    shown, truth = pictures.images[measure], pictures.labels[measure]
    results = {"pictures": pictures.source, "learnt_from": len(learn), "measured_by": len(measure),
               "settings": asdict(settings), "kernels": cpu.status()}
    for model in convnet, vit:
        loss = fit(model, settings.recipe(), batches(model, pictures.images[learn], pictures.labels[learn], settings))
        p = class_probabilities(model, shown)
        right = int(np.count_nonzero(p.argmax(1) == truth))
        results[model.name] = {"parameters": len(model.flat), "training_loss": loss, "right": right,
                               "accuracy": right / len(measure)}
        print(f"{model.name:10}{len(model.flat):8,} parameters   right of the held-out pictures: {right} of {len(measure)}, "
              f"{right / len(measure):.1%}", flush=True)
    kinds = list(mistakes(p.argmax(1), truth, pictures.names))
    print(f"mistakes of the ViT: {', '.join(kinds[:10]) or 'none'}{' ...' if len(kinds) > 10 else ''}")
    write_results(out, results)
    missing = save_picture(out / "attention.png", (1.5 * len(pictures.names), 5.5),
                           lambda figure: draw(figure, vit, shown, truth, p, pictures.names))
    print(missing or f"saved in {out}: results.json, attention.png")


def batches(model, images, labels, settings):
    """For fit(): the loss of each step's batch, whose pictures are drawn, turned and moved from (seed, step)."""
    dropout = getattr(model.config, "dropout", 0)

    def loss_at(step):
        rng = np.random.default_rng([settings.seed, step])
        rows = rng.integers(len(images), size=settings.batch_size)
        x, y = moved(images[rows], rng, settings.shift, settings.degrees)[..., None], labels[rows]
        seeds = sequence_seeds(settings.seed, step, settings.batch_size)

        def loss(model, part):
            return model.loss(x[part], y[part], **{"seeds": seeds[part]} if dropout else {}, total=len(y))

        return loss

    return loss_at


def class_probabilities(model, images):
    """What the model makes of pictures (N, H, W): (N, classes)."""
    with no_grad():
        return np.concatenate([softmax(model(images[i:i + 64, :, :, None])).data for i in range(0, len(images), 64)])


def mistakes(guesses, truth, names):
    """Each kind of mistake in words, the most frequent first."""
    kinds, counts = np.unique(np.stack([truth, guesses], 1)[guesses != truth], axis=0, return_counts=True)
    for i in np.argsort(-counts, kind="stable"):
        times = "" if counts[i] == 1 else f" ({counts[i]} times)"
        yield f"{names[kinds[i][0]]} taken for {names[kinds[i][1]]}{times}"


def draw(figure, vit, images, truth, p, names):
    """A picture of each class, below it the same with the ViT's attention over it; and pictures that it got wrong."""
    guesses, columns = p.argmax(1), len(names)
    chosen = [np.flatnonzero(truth == label)[0] for label in range(columns)]
    with no_grad():
        attention = vit.attention_over_image(images[chosen][..., None])
    axes = figure.subplots(3, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    frame = (-0.5, images.shape[2] - 0.5, images.shape[1] - 0.5, -0.5)
    for column, i in enumerate(chosen):
        axes[0, column].imshow(images[i], cmap="gray_r", vmin=0, vmax=1)
        axes[0, column].set_title(f"{names[guesses[i]]}\n{p[i].max():.0%}", fontsize=9, parse_math=False)
        axes[1, column].imshow(images[i], cmap="gray_r", vmin=0, vmax=1)
        axes[1, column].imshow(attention[column], cmap="inferno", alpha=0.6, extent=frame, interpolation="bilinear")
    for column, i in enumerate(np.flatnonzero(guesses != truth)[:columns]):
        axes[2, column].imshow(images[i], cmap="gray_r", vmin=0, vmax=1)
        axes[2, column].set_title(f"{names[truth[i]]}, taken\nfor {names[guesses[i]]}", fontsize=9, parse_math=False)
    figure.suptitle("Held-out pictures; where the ViT's answer came from, bright: most; and mistakes")


if __name__ == "__main__":
    program(main, Settings)
