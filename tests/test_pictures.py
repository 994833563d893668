"""Pictures: where they come from, what is held out, and how they are turned and moved."""
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.data import held_out, load_pictures, moved
from minigpt.settings import UserError


def some_images(N=6, H=5, W=4):
    return np.random.default_rng(0).integers(1, 17, (N, H, W))


def saved(path, **changes):
    arrays = {"images": some_images(), "labels": np.array(["b", "a", "b", "a", "b", "a"])} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def png_folder(folder, shape=(5, 4), numbers=(0, 1)):
    image = pytest.importorskip("matplotlib.image", reason="matplotlib is not installed")
    for name in "cat", "dog":
        (folder / name).mkdir(parents=True)
        for n in numbers:
            image.imsave(folder / name / f"{n}.png", np.full(shape, 0.5 + n / 2), cmap="gray", vmin=0, vmax=1)
    return folder


# ---- where they come from ----

def test_the_digits_of_scikit_learn():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pictures = load_pictures()
    assert pictures.images.shape == (1797, 8, 8) and pictures.images.dtype == np.float32
    assert sorted(np.unique(pictures.images * 16)) == list(range(17))
    assert pictures.names[7] == "seven" and np.bincount(pictures.labels).min() > 170


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install '\.\[digits\]', or give pictures"):
        load_pictures()


def test_a_file_of_arrays(tmp_path):
    pictures = load_pictures(saved(tmp_path / "own.npz"))
    assert pictures.names == ("a", "b") and pictures.labels.tolist() == [1, 0, 1, 0, 1, 0]
    np.testing.assert_allclose(pictures.images, some_images() / some_images().max(), rtol=1e-6)
    numbers = load_pictures(saved(tmp_path / "numbers.npz", labels=np.array([30, 4, 30, 4, 30, 4])))
    assert numbers.names == ("4", "30") and numbers.labels.tolist() == [1, 0, 1, 0, 1, 0]


def test_a_folder_of_png_files(tmp_path):
    pictures = load_pictures(png_folder(tmp_path / "animals"))
    assert pictures.names == ("cat", "dog") and pictures.labels.tolist() == [0, 0, 1, 1]
    assert pictures.images.shape == (4, 5, 4) and pictures.images[1].min() == 1
    np.testing.assert_allclose(pictures.images[2], 0.5, atol=0.01)


WRONG_ARRAYS = {
    "no labels": ({"labels": None}, "has no array 'labels"),
    "colours": ({"images": np.zeros((6, 4, 4, 3))}, "has to be numbers (N, H, W)"),
    "too few labels": ({"labels": np.array([1, 2])}, "has to be 6 integers or texts"),
    "labels between numbers": ({"labels": np.linspace(0, 1, 6)}, "has to be 6 integers or texts"),
    "below black": ({"images": -np.ones((6, 2, 2))}, "negative or not finite"),
    "not a number": ({"images": np.full((6, 2, 2), np.nan)}, "negative or not finite"),
    "one class": ({"labels": np.zeros(6, int)}, "all pictures show '0'"),
    "a class of one": ({"labels": np.array([0, 0, 0, 0, 0, 1])}, "only one picture of '1'"),
    "objects": ({"labels": np.array([None] * 6)}, "is not an .npz file of plain arrays"),
}


@pytest.mark.parametrize("wrong", WRONG_ARRAYS)
def test_arrays_that_do_not_fit_are_one_sentence(tmp_path, wrong):
    changes, said = WRONG_ARRAYS[wrong]
    with pytest.raises(UserError) as error:
        load_pictures(saved(tmp_path / "own.npz", **changes))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_files_that_do_not_fit_are_one_sentence(tmp_path):
    (tmp_path / "text.npz").write_text("no arrays")
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "empty").mkdir()
    for name, said in {"text.npz": "is not an .npz file", "single.npy": "is not an .npz file", "none.npz": "there is no file",
                       "empty": "holds no pictures"}.items():
        with pytest.raises(UserError, match=said):
            load_pictures(tmp_path / name)


def test_png_files_that_do_not_fit_are_one_sentence(tmp_path):
    folder = png_folder(tmp_path / "animals")
    (folder / "dog/2.png").write_bytes((folder / "dog/1.png").read_bytes()[:20])
    with pytest.raises(UserError, match="2.png can't be read as a PNG file"):
        load_pictures(folder)
    (folder / "dog/2.png").unlink()
    png_folder(tmp_path / "larger", (6, 6), (0,))
    (tmp_path / "larger/dog/0.png").rename(folder / "dog/3.png")
    with pytest.raises(UserError, match="3.png has 6 x 6 pixels, and the pictures before it 5 x 4"):
        load_pictures(folder)


# ---- what is held out ----

@given(labels=st.lists(st.integers(0, 3), min_size=2, max_size=60), share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_each_picture_is_on_one_side_and_each_class_on_both(labels, share, seed):
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3, *labels])
    learn, measure = held_out(labels, share, seed)
    assert sorted([*learn, *measure]) == list(range(len(labels)))
    for label in range(4):
        n, held = np.count_nonzero(labels == label), np.count_nonzero(labels[measure] == label)
        assert 1 <= held <= n - 1 and abs(held - share * n) <= 1
    assert np.array_equal(measure, held_out(labels, share, seed)[1])


def test_another_seed_holds_out_others():
    labels = np.repeat([0, 1], 50)
    assert not np.array_equal(held_out(labels, 0.2, 1)[1], held_out(labels, 0.2, 2)[1])


# ---- turned and moved ----

class Always:
    """In place of a random generator: the largest number that may be drawn, or a part of it."""

    def __init__(self, share):
        self.share = share

    def uniform(self, low, high, size):
        return np.full(size, self.share * high)


def test_nothing_moves_a_picture_by_nothing():
    images = some_images().astype(np.float32)
    np.testing.assert_allclose(moved(images, np.random.default_rng(0), 0, 0), images, rtol=1e-6)


def test_a_picture_moves_by_whole_pixels_and_by_halves():
    images = some_images().astype(np.float64)
    expected = np.zeros_like(images)
    expected[:, :-1, :-1] = images[:, 1:, 1:]
    np.testing.assert_allclose(moved(images, Always(1), 1, 0), expected, atol=1e-9)
    wide = np.pad(images, ((0, 0), (0, 1), (0, 1)))
    mean_of_four = (wide[:, 1:, 1:] + wide[:, :-1, 1:] + wide[:, 1:, :-1] + wide[:, :-1, :-1]) / 4
    np.testing.assert_allclose(moved(images, Always(0.5), 1, 0), mean_of_four, atol=1e-9)
    assert not moved(images, Always(1), 99, 0).any()


def test_a_picture_turns_about_its_middle():
    images = some_images(2, 5, 5).astype(np.float64)
    np.testing.assert_allclose(moved(images, Always(1), 0, 90), np.rot90(images, -1, (1, 2)), atol=1e-6)
    np.testing.assert_allclose(moved(images, Always(1), 0, 180), images[:, ::-1, ::-1], atol=1e-5)


def test_each_picture_is_moved_in_its_own_way_and_none_gets_brighter():
    images = np.ones((50, 6, 6), np.float32)
    result = moved(images, np.random.default_rng(0), 1, 20)
    assert result.dtype == np.float32 and result.min() >= 0 and result.max() <= 1 + 1e-6
    assert len({picture.tobytes() for picture in result}) == 50
