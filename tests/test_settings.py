"""Settings: flags, presets, files, and the one sentence that each mistake gets."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from told import message

from minigpt.settings import UserError, as_dict, field_comments, from_dict, parse


@dataclass(frozen=True)
class Base:
    """What the program does."""

    steps: int = 100                            # optimizer steps,
                                                # counted from the start
    # ---- a heading, which belongs to no field ----
    learning_rate: float = 1e-3                 # step size, 50% of the usual

    quiet: bool = False

    def rate(self):
        quiet = 3                               # no comment of a field
        return quiet


@dataclass(frozen=True)
class Settings(Base):
    device: Literal["cpu", "cuda"] = "cpu"      # where the arrays live
    data: str | None = None                     # a text file
    sample: bool = True                         # print a sample
    limit: int | None = 5                       # at most this many
    presets: ClassVar[dict[str, dict]] = {      # not a setting
        "quick": {"steps": 10, "device": "cuda"},
    }

    def __post_init__(self):
        if self.steps < 1:
            raise UserError("--steps must be at least 1")


@dataclass(frozen=True)
class Words:
    sentences: tuple[str, ...] = ("a", "b c")   # what to compare
    limit: int | None = 5                       # at most this many


@dataclass(frozen=True)
class Required:
    width: int                                  # width of the model
    depth: int = 2                              # layers


def test_defaults_and_flags():
    assert parse(Settings, []) == Settings()
    argv = ["--learning-rate=0.5", "--steps", "7", "--no-sample", "--device=cuda", "--data=x"]
    settings = parse(Settings, argv)
    assert settings == Settings(steps=7, learning_rate=0.5, device="cuda", data="x", sample=False)
    assert parse(Settings, ["--learning_rate", "2"]).learning_rate == 2.0
    assert parse(Settings, ["--data=a_b=c_d"]).data == "a_b=c_d"
    assert parse(Settings, ["--limit", "none"]).limit is None
    assert parse(Settings, ["--limit", "-3"]).limit == -3


@pytest.mark.parametrize("argv, expected", [
    ([], Words()), (["x"], Words(("x",))), (["x", "--limit", "2", "y_z", "-3"], Words(("x", "y_z", "-3"), 2)),
    (["--limit=2", "x", "y"], Words(("x", "y"), 2)), (["x", "--", "--y_z"], Words(("x", "--y_z"))), ([""], Words(("",)))])
def test_words_that_stand_alone(argv, expected):
    assert parse(Words, argv) == expected


def test_words_come_from_a_file_and_go_into_one(tmp_path):
    (tmp_path / "c.toml").write_text('sentences = ["x", "y"]', encoding="utf-8")
    assert parse(Words, ["--config", str(tmp_path / "c.toml")]) == Words(("x", "y"))
    assert from_dict(Words, json.loads(json.dumps(as_dict(Words(("x",))))), "it") == Words(("x",))
    for wrong in "x", ["x", 3], {"x": 1}:
        assert "'sentences' in it must be a list of texts" in message(from_dict, Words, {"sentences": wrong}, "it")
    assert "unknown argument --sentences" in message(parse, Words, ["--sentences", "x"])


@given(steps=st.integers(1, 10**9), rate=st.floats(allow_nan=False), sample=st.booleans(), data=st.text())
def test_flags_carry_any_value(steps, rate, sample, data):
    flag = "--sample" if sample else "--no-sample"
    argv = [f"--steps={steps}", f"--learning-rate={rate!r}", flag, f"--data={data}"]
    expected = None if data.lower() == "none" else data
    assert parse(Settings, argv) == Settings(steps=steps, learning_rate=rate, sample=sample, data=expected)


@pytest.mark.parametrize("argv, parts", [
    (["--lerning-rate", "1"], ["--lerning-rate", "did you mean --learning-rate?"]),
    (["--xyzzy"], ["--xyzzy", "--help"]),
    (["--step", "1"], ["--step", "did you mean --steps?"]),         # no abbreviations
    (["stray"], ["stray"]),
    (["--steps", "many"], ["--steps", "a whole number", "'many'"]),
    (["--steps", "1.5"], ["--steps", "a whole number"]),
    (["--steps"], ["--steps"]),
    (["--learning-rate", "nan"], ["--learning-rate", "a number"]),
    (["--device", "tpu"], ["--device", "cpu, cuda", "'tpu'"]),
    (["--limit", "x"], ["--limit", "or none"]),
    (["--preset", "slow"], ["--preset", "slow", "quick"]),
    (["--steps", "0"], ["--steps must be at least 1"]),             # the dataclass's own check
    (["--config", "nowhere.toml"], ["nowhere.toml", "No such file"]),
])
def test_mistakes_on_the_command_line(argv, parts):
    text = message(parse, Settings, argv)
    assert all(part in text for part in parts), text


def test_flag_wins_over_config_over_preset_over_default(tmp_path):
    contents = {"c.toml": "steps = 20\nlearning_rate = 1\n", "c.json": '{"steps": 20, "learning_rate": 1}'}
    for name, content in contents.items():
        config = str(tmp_path / name)
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert parse(Settings, ["--preset", "quick"]) == Settings(steps=10, device="cuda")
        assert parse(Settings, ["--preset", "quick", "--config", config]) == Settings(20, 1.0, device="cuda")
        argv = ["--steps", "3", "--preset", "quick", "--config", config]
        assert parse(Settings, argv) == Settings(3, 1.0, device="cuda")
        # A flag that repeats the default is a flag all the same.
        assert parse(Settings, ["--steps", "100", "--config", config]).steps == 100


@pytest.mark.parametrize("name, content, parts", [
    ("c.toml", "stepps = 3", ["stepps", "c.toml", "did you mean steps?"]),
    ("c.toml", "zzz = 3", ["zzz", "c.toml", "learning_rate"]),
    ("c.toml", "steps = '3'", ["'steps'", "c.toml", "a whole number", "'3'"]),
    ("c.toml", "steps = true", ["'steps'", "a whole number"]),
    ("c.toml", "learning_rate = nan", ["'learning_rate'", "a number"]),
    ("c.toml", "sample = 1", ["'sample'", "true or false"]),
    ("c.toml", "device = 'tpu'", ["'device'", "cpu, cuda"]),
    ("c.toml", "steps = ", ["c.toml", "TOML"]),
    ("c.json", "{", ["c.json", "JSON"]),
    ("c.json", "[1]", ["c.json", "list"]),
    ("c.json", '{"steps": null}', ["'steps'", "None"]),
    ("c.toml", b"\xff", ["c.toml"]),
])
def test_mistakes_in_a_config_file(tmp_path, name, content, parts):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    text = message(parse, Settings, ["--config", str(path)])
    assert all(part in text for part in parts), text


def test_comments_become_help(capsys):
    assert field_comments(Settings) == {
        "steps": "optimizer steps, counted from the start", "learning_rate": "step size, 50% of the usual",
        "device": "where the arrays live", "data": "a text file", "sample": "print a sample",
        "limit": "at most this many",
    }
    with pytest.raises(SystemExit) as caught:
        parse(Settings, ["--help"], "A program.")
    assert not caught.value.code
    text = " ".join(capsys.readouterr().out.split())
    for part in ["A program.", "--learning-rate FLOAT step size, 50% of the usual (default: 0.001)",
                 "--device {cpu,cuda} where the arrays live (default: cpu)", "a text file (default: none)",
                 "--sample, --no-sample print a sample (default: yes)", "--preset {quick}", "--config FILE"]:
        assert part in text
    assert "presets" not in text


def test_required_fields(capsys):
    assert parse(Required, ["--width", "3"]) == Required(3)
    assert "--width" in message(parse, Required, [])
    with pytest.raises(SystemExit):
        parse(Required, ["--help"])
    assert "(required)" in capsys.readouterr().out


def test_from_dict_is_the_inverse_of_as_dict():
    settings = Settings(steps=3, data="ä", limit=None)
    assert from_dict(Settings, json.loads(json.dumps(as_dict(settings))), "config.json") == settings
    assert list(as_dict(settings)) == ["steps", "learning_rate", "quiet", "device", "data", "sample", "limit"]
    assert from_dict(Settings, {}, "config.json") == Settings()


@pytest.mark.parametrize("mapping, parts", [
    ({"width": 3, "dept": 1}, ["config.json", "'dept'", "depth"]),
    ({"depth": 3}, ["config.json", "'width'"]),
    ({"width": "3"}, ["config.json", "'width'", "a whole number"]),
    ({"width": 3, 7: 1}, ["config.json", "7"]),
    ([3], ["config.json", "list"]),
])
def test_from_dict_refuses(mapping, parts):
    text = message(from_dict, Required, mapping, "config.json")
    assert all(part in text for part in parts), text


def test_a_type_that_no_flag_can_have_is_a_bug():
    @dataclass
    class Wrong:
        items: list = ()                        # not allowed

    with pytest.raises(TypeError, match="list"):
        parse(Wrong, [])


PROGRAM = '''"""Counts."""
import sys
from dataclasses import dataclass
from minigpt.settings import UserError, program

@dataclass(frozen=True)
class Settings:
    end: str = "well"       # how it ends

def main(settings):
    print("started")
    if settings.end == "user": raise UserError("that was wrong: do this")
    if settings.end == "keyboard": raise KeyboardInterrupt
    if settings.end == "memory": raise MemoryError
    if settings.end == "bug": raise ValueError("a bug")
    if settings.end == "pipe":
        for i in range(int(sys.stdin.readline())): print("line", i)

program(main, Settings)
'''


@pytest.mark.parametrize("argv, code, error", [
    ([], 0, ""),
    (["--end", "user"], 2, "error: that was wrong: do this\n"),
    (["--ent", "user"], 2, "error: unknown argument --ent: did you mean --end?\n"),
    (["--end", "keyboard"], 130, "interrupted\n"),
    (["--end", "memory"], 2, "error: not enough memory: use a smaller model, batch or context.\n"),
    (["--end", "bug"], 1, None),
])
def test_a_program_ends_with_one_line(tmp_path, argv, code, error):
    path = tmp_path / "counts.py"
    path.write_text(PROGRAM, encoding="utf-8")
    ended = subprocess.run([sys.executable, str(path), *argv], capture_output=True, text=True)
    assert ended.returncode == code
    assert ended.stderr == error if error is not None else ended.stderr.endswith("ValueError: a bug\n")


@pytest.mark.parametrize("lines", [1, 100_000])           # seen when the program ends, and while it prints
def test_a_program_ends_quietly_when_its_pipe_is_closed(tmp_path, lines):
    path = tmp_path / "counts.py"
    path.write_text(PROGRAM, encoding="utf-8")
    pipes = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.PIPE)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, str(path), "--end", "pipe"]
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:
        process.stdout.close()
        process.stdin.write(f"{lines}\n")
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_help_starts_with_the_docstring_of_the_program(tmp_path):
    path = tmp_path / "counts.py"
    path.write_text(PROGRAM, encoding="utf-8")
    ended = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True)
    assert ended.returncode == 0
    assert "Counts." in ended.stdout and "how it ends (default: well)" in ended.stdout
