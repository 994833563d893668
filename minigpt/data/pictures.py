"""Small grey pictures of things that have names: 8 x 8 handwritten digits, or pictures of the user's.

The digits are those that come with scikit-learn: 1797 by 13 persons, the test part of E. Alpaydin and C. Kaynak's Optical
Recognition of Handwritten Digits (1998), with 17 grey levels a pixel.
"""
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..settings import UserError

DIGITS = "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"


@dataclass(frozen=True)
class Pictures:
    images: np.ndarray              # (N, H, W) float32, from 0 to 1
    labels: np.ndarray              # (N,) int64: which name is right
    names: tuple                    # what each class is called
    source: str                     # a clause for the user: which pictures, how many, how large

    def __post_init__(self):
        for label, name in enumerate(self.names):
            if np.count_nonzero(self.labels == label) < 2:
                raise UserError(f"there is only one picture of {name!r}: give two at least, one to learn from and one to "
                                "measure by")
        if len(self.names) < 2:
            raise UserError(f"all pictures show {self.names[0]!r}: give pictures of two classes at least")


def load_pictures(path=None):
    """scikit-learn's digits where path is None; else those in a folder or a file of the user's.

    A folder holds a folder of PNG files for each class, under the class's name; a file is an .npz with the arrays `images`
    (N, H, W) and `labels` (N,) of integers or texts. Their numbers are divided by the largest. Raises UserError where
    there are no such pictures.
    """
    if path is None:
        return digits()
    images, labels = from_folder(Path(path)) if Path(path).is_dir() else from_npz(path)
    names, numbers = np.unique(labels, return_inverse=True)
    images = np.asarray(images, np.float32)
    source = f"{len(images)} pictures of {images.shape[1]} x {images.shape[2]} pixels in {path}"
    return Pictures(images / max(images.max(), 1e-6), numbers.astype(np.int64), tuple(map(str, names)), source)


def digits():
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("the handwritten digits come with scikit-learn: pip install '.[digits]', or give pictures of your "
                        "own with --data") from None
    found = load_digits()
    images = (found.images / 16).astype(np.float32)
    return Pictures(images, found.target.astype(np.int64), DIGITS, f"{len(images)} handwritten digits of 8 x 8 pixels")


def from_folder(folder):
    paths = sorted(folder.glob("*/*.png"))
    if not paths:
        raise UserError(f"{folder} holds no pictures: it needs a folder of .png files for each class, such as "
                        f"{folder / 'seven' / '1.png'}")
    try:
        from matplotlib.image import imread
    except ImportError:
        raise UserError("PNG files are read by matplotlib: pip install matplotlib, or give an .npz file") from None
    images, labels = [], []
    for path in paths:
        try:
            pixels = imread(path)
        except (OSError, ValueError, SyntaxError) as error:                     # SyntaxError: a broken PNG
            raise UserError(f"{path} can't be read as a PNG file ({error}): save it anew, or take it away") from None
        grey = pixels if pixels.ndim == 2 else pixels[..., :3 if pixels.shape[2] > 2 else 1].mean(axis=2)
        if images and grey.shape != images[0].shape:
            raise UserError(f"{path} has {grey.shape[0]} x {grey.shape[1]} pixels, and the pictures before it "
                            f"{images[0].shape[0]} x {images[0].shape[1]}: make all of one size")
        images.append(grey)
        labels.append(path.parent.name)
    return np.stack(images), labels


def from_npz(path):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except FileNotFoundError:
        raise UserError(f"there is no file or folder {path}: give a folder of PNG files by class, or an .npz file") from None
    except KeyError as error:
        raise UserError(f"{path} has no array {error}: it needs `images` (N, H, W) and `labels` (N,)") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not an .npz file of plain arrays ({error}): np.savez(path, images=..., labels=...) "
                        "makes one") from None
    if images.ndim != 3 or images.dtype.kind not in "buif" or not images.size:
        raise UserError(f"`images` in {path} is {images.dtype} of shape {images.shape}, but has to be numbers (N, H, W)")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iuU":
        raise UserError(f"`labels` in {path} is {labels.dtype} of shape {labels.shape}, but has to be {len(images)} integers "
                        "or texts")
    if not np.isfinite(images).all() or images.min() < 0:
        raise UserError(f"`images` in {path} holds numbers that are negative or not finite: grey levels begin at 0")
    return images, labels


def held_out(labels, share, seed):
    """Which pictures to learn from, and which to measure by: two arrays of places.

    Of each class the share (one picture at least of each side) is drawn by the seed to measure by.
    """
    rng, measure = np.random.default_rng([seed, 7]), []
    for label in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        measure.append(of_class[:min(max(1, round(share * len(of_class))), len(of_class) - 1)])
    chosen = np.zeros(len(labels), bool)
    chosen[np.concatenate(measure)] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def moved(images, rng, shift, degrees):
    """Each of the images (N, H, W) turned about its middle by up to `degrees` and moved by up to `shift` pixels, at random.

    A pixel of the result lies somewhere between four of the image: it is their mean, each weighted by how near it lies.
    Outside an image is 0.
    """
    N, H, W = images.shape
    angle = np.radians(rng.uniform(-degrees, degrees, (N, 1, 1)))
    down, across = rng.uniform(-shift, shift, (2, N, 1, 1))
    y, x = np.arange(H)[:, None] - (H - 1) / 2, np.arange(W)[None, :] - (W - 1) / 2
    rows = np.cos(angle) * y - np.sin(angle) * x + down + (H - 1) / 2           # (N, H, W): where each pixel comes from
    columns = np.sin(angle) * y + np.cos(angle) * x + across + (W - 1) / 2
    wide = np.zeros((N, H + 3, W + 3), images.dtype)                            # one pixel more on two sides, two on two
    wide[:, 1:-2, 1:-2] = images
    rows, columns = np.clip(rows + 1, 0, H + 1), np.clip(columns + 1, 0, W + 1)
    i, j, n = rows.astype(int), columns.astype(int), np.arange(N)[:, None, None]
    low, left = (rows - i).astype(images.dtype), (columns - j).astype(images.dtype)
    above = wide[n, i, j] * (1 - left) + wide[n, i, j + 1] * left
    below = wide[n, i + 1, j] * (1 - left) + wide[n, i + 1, j + 1] * left
    return above * (1 - low) + below * low
