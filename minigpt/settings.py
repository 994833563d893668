"""A program's settings: a frozen dataclass becomes --flags with types, defaults and --help.

    @dataclass(frozen=True)
    class Settings:
        learning_rate: float = 1e-3             # step size of AdamW
        device: Literal["cpu", "cuda"] = "cpu"  # where the arrays live
        data: str | None = None                 # a text file of your own
        sample: bool = True                     # print a sample at the end
        presets: ClassVar[dict[str, dict]] = {"quick": {"learning_rate": 3e-3}}

    if __name__ == "__main__":
        program(main, Settings)                 # --learning-rate 0.01 --no-sample --preset quick

A field may be an int, a float, a str, a bool, a Literal of these, or any of them `| None`. One of tuple[str, ...]
has no flag: it takes the words that stand alone. A flag wins over --config FILE, that over --preset NAME, and that over the
default. What a value must satisfy beyond its type (a positive width, say) the dataclass checks in its own
`__post_init__`, which raises UserError.
"""

import argparse
import dataclasses
import difflib
import inspect
import io
import json
import math
import os
import reprlib
import sys
import textwrap
import tokenize
import tomllib
import types
import typing
from pathlib import Path


_LAYOUT = {tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.COMMENT}    # tokens that say nothing


class UserError(Exception):
    """Something the user can put right, in one sentence: what was wrong, what was expected, what to do."""


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80


def brief(value):
    """repr of what a file or a user gave, which may be anything: not longer than a message bears, nor too deep."""
    return _BRIEF.repr(value)


# ---- from a dictionary, and back ----

def from_dict(Settings, mapping, where):
    """An instance of the dataclass from {name: value}, as a checkpoint's config.json holds it.

    where: str, what the mapping was read from, for the messages. Raises UserError for a key that is unknown,
    a value of the wrong type, and a key that is missing although its field has no default.
    """
    values = _checked(Settings, mapping, where)
    missing = _missing(Settings, values)
    if missing:
        raise UserError(f"{where} lacks {', '.join(map(repr, missing))}: add it")
    return Settings(**values)


def as_dict(settings):
    """{name: value} of an instance, in the order of its fields: plain JSON, and from_dict's inverse."""
    return dataclasses.asdict(settings)


def check_value(annotation, value, name, where):
    """`value` as the field's type has it (an int becomes a float where a float is due); else a UserError."""
    kind, choices, optional = _unfold(annotation)
    if value is None and optional:
        return None
    if kind is tuple and isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value):
        return tuple(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or value != value or (choices and value not in choices):   # nan != nan
        expected = _in_words(kind, choices) + (" or null" if optional else "")
        raise UserError(f"{name!r} in {where} must be {expected}, and it is {brief(value)}")
    return value


def _checked(Settings, mapping, where):
    if not isinstance(mapping, dict):
        raise UserError(f"{where} must hold names with their values, and it holds {type(mapping).__name__}")
    hints = _field_types(Settings)
    for key in mapping:
        if key not in hints:
            raise UserError(f"{where} has the unknown key {brief(key)}" + _nearest(str(key), hints, "keys"))
    return {key: check_value(hints[key], value, key, where) for key, value in mapping.items()}


# ---- from the command line ----

def parse(Settings, argv=None, description=None, defaults=None):
    """The settings that a command line asks for.

    argv: list of str, by default sys.argv[1:]. description: what --help says first, by default the docstring
    of the dataclass. defaults: a dict of values that take the place of the dataclass's own, those of a run that is
    resumed, say. Raises UserError for whatever does not fit; --help prints and exits.
    """
    argv = sys.argv[1:] if argv is None else argv
    end = argv.index("--") if "--" in argv else len(argv)           # no flags behind it
    argv = [*map(_with_dashes, argv[:end]), *argv[end:]]
    parser = _parser(Settings, description or inspect.getdoc(Settings))
    given, unknown = parser.parse_known_intermixed_args(argv)       # lone words may stand before and behind flags
    if unknown:
        word = unknown[0].partition("=")[0]
        raise UserError(f"unknown argument {word}" + _nearest(word, parser._option_string_actions, "flags"))
    given = vars(given)
    preset, config = given.pop("preset", None), given.pop("config", None)
    values = _checked(Settings, defaults or {}, "the saved settings")
    if preset is not None:
        values |= _checked(Settings, Settings.presets[preset], f"the preset {preset}")
    if config is not None:
        values |= _checked(Settings, _read_config(config), config)
    values |= _checked(Settings, given, "the command line")         # only what stood there: SUPPRESS
    missing = _missing(Settings, values)
    if missing:
        raise UserError(f"{_flag(missing[0])} is required: give it a value")
    return Settings(**values)


def program(main, Settings):
    """A program's last line: parse the command line, call main(settings), and end as programs should.

    The docstring of main's module heads --help. A UserError becomes one line on stderr and exit code 2;
    Ctrl-C becomes one line and 130; a closed pipe (`| head`) ends quietly. Any other exception is a bug and
    keeps its traceback.
    """
    sys.stdout.reconfigure(errors="replace")            # what a terminal can't show becomes "?", not an error
    try:
        main(parse(Settings, description=inspect.getdoc(inspect.getmodule(main))))
        sys.stdout.flush()                              # a closed pipe shows here, not when Python shuts down
    except UserError as error:
        sys.exit(_say(f"error: {error}", 2))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted", 130))
    except MemoryError as error:
        sys.exit(_say(f"error: not enough memory: use a smaller model, batch or context. {error}".strip(), 2))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or the last flush would complain
        sys.exit(1)


def _say(line, code):
    print(line, file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message):                           # argparse would print its usage and exit
        raise UserError(f"{message}; --help lists every flag")


def _parser(Settings, description):
    parser = _Parser(description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    presets = getattr(Settings, "presets", {})
    if presets:
        parser.add_argument("--preset", choices=list(presets), help="other defaults for a purpose; flags win")
    parser.add_argument("--config", metavar="FILE", help="TOML or JSON file of these settings; flags win")
    hints, comments = _field_types(Settings), field_comments(Settings)
    for field in dataclasses.fields(Settings):
        kind, choices, optional = _unfold(hints[field.name])
        default = "required" if _is_required(field) else f"default: {_default(field)}"
        text = f"{comments.get(field.name, '')} ({default})".strip().replace("%", "%%")
        if kind is bool:
            parser.add_argument(_flag(field.name), action=argparse.BooleanOptionalAction, help=text)
        elif kind is tuple:
            parser.add_argument(field.name, nargs="*", metavar="TEXT", help=text)
        else:
            shape = f"{{{','.join(map(str, choices))}}}" if choices else kind.__name__.upper()
            read = _reader(kind, choices, optional)
            parser.add_argument(_flag(field.name), type=read, metavar=shape, help=text)
    return parser


def _reader(kind, choices, optional):
    """The function that turns a word of the command line into a value."""
    def read(word):
        if optional and word.lower() == "none":
            return None
        try:
            value = kind(word)
        except ValueError:
            value = math.nan
        if value != value or (choices and value not in choices):
            expected = _in_words(kind, choices) + (" or none" if optional else "")
            raise argparse.ArgumentTypeError(f"expected {expected}, not {word!r}")
        return value
    return read


def _read_config(path):
    """The table in a TOML or JSON file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        return json.loads(text) if path.endswith(".json") else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"cannot read the settings in {path}: {error.strerror}") from None
    except ValueError as error:                         # what both parsers and the decoder of UTF-8 raise
        form = "JSON" if path.endswith(".json") else "TOML"
        raise UserError(f"{path} is not well-formed {form}: {error}") from None


# ---- what a dataclass says of itself ----

def field_comments(Settings):
    """{field name: its trailing comment}, base classes included; a comment may go on in lines of its own."""
    comments = {}
    for base in reversed(Settings.__mro__):             # a field that a subclass repeats: its comment
        if dataclasses.is_dataclass(base):
            comments |= _comments_in(base)
    return comments


def _comments_in(Settings):
    try:
        source = textwrap.dedent(inspect.getsource(Settings))
    except (OSError, TypeError):                        # typed into an interpreter: it has no source
        return {}
    names = {field.name for field in dataclasses.fields(Settings)}
    comments, name, column, depth, starts = {}, None, 0, 0, False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        depth += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
        if token.type == tokenize.COMMENT and name:
            if name not in comments:
                comments[name], column = token.string.lstrip("# "), token.start[1]
            elif starts and token.start[1] == column:               # it goes on below itself
                comments[name] += " " + token.string.lstrip("# ")
        elif starts and depth == 1 and token.type not in _LAYOUT:   # the first word of a statement
            name = token.string if token.string in names else None
        starts = token.type == tokenize.NEWLINE or (starts and token.type in _LAYOUT)
    return comments


def _field_types(Settings):
    hints = typing.get_type_hints(Settings)
    return {field.name: hints[field.name] for field in dataclasses.fields(Settings)}


def _unfold(annotation):
    """(int | float | str | bool | tuple, the choices of a Literal or None, whether None is allowed)."""
    if annotation == tuple[str, ...]:
        return tuple, None, False
    optional = False
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        optional, annotation = len(members) < len(typing.get_args(annotation)), members[0]
        if len(members) > 1:
            raise TypeError(f"a setting is of one type, not of {members}")
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else None
    kind = type(choices[0]) if choices else annotation
    if kind not in (int, float, str, bool):
        raise TypeError(f"a setting is an int, a float, a str, a bool or a tuple[str, ...], and not {annotation}")
    return kind, choices, optional


def _in_words(kind, choices):
    if choices:
        return "one of " + ", ".join(map(str, choices))
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false",
            tuple: "a list of texts"}[kind]


def _missing(Settings, values):
    return [f.name for f in dataclasses.fields(Settings) if f.name not in values and _is_required(f)]


def _is_required(field):
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field):
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    shown = repr(value) if isinstance(value, str) and value.strip() != value else value     # "\n" would be invisible
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), shown)


def _flag(name):
    return "--" + name.replace("_", "-")


def _with_dashes(word):
    """--learning_rate=a_b is --learning-rate=a_b."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else word


def _nearest(word, known, what):
    close = difflib.get_close_matches(word, list(known), n=1)
    if close:
        return f": did you mean {close[0]}?"
    return f": --help lists the {what}" if what == "flags" else f"; the {what} are {', '.join(known)}"
