"""Tools: functions that a model calls in its own text, and the engine that runs them.

A tool is a Python function of one argument, a str, int or float, that returns a text. Its name, its docstring's first line
and the argument's name and type are its schema; so another tool plugs in as one function:

    def draw(digit: int):
        "Draw a digit."
        ...
    tools = [*TOOLS, draw]

The model writes `<|call|>calculator(12*3)<|result|>`. Whatever goes wrong with a call, there is a result: an error text,
which the model reads as it would read any other, and goes on.

Nothing that a model or a file says is ever run as Python. An expression is parsed to Python's own syntax tree, and the
functions here walk that tree: numbers, + - * / // % **, brackets, and for the solver one unknown. What is not on that
list is an error, as is a number of more than 40 digits or a text longer than 200 characters, so that each call ends soon.
"""
import ast
import inspect
import math
import operator
import re
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..settings import UserError

LONGEST = 200                       # characters of an argument, and of a result
LARGEST = 10 ** 40                  # magnitude of a number, and of its numerator and denominator
SECONDS = 2.0                       # how long a tool may take
CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*\((.*)\)\s*", re.DOTALL)


class ToolError(Exception):
    """What a tool could not do: a sentence for the model."""


def parse_call(text):
    """("calculator", "12*3") of "calculator(12*3)". Raises ValueError for what is not of that form."""
    if not isinstance(text, str):
        raise ValueError(f"a call is a text such as calculator(12*3), not {type(text).__name__}")
    match = CALL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:LONGEST]!r} is not of the form name(argument), such as calculator(12*3)")
    return match[1], match[2].strip()


@dataclass(frozen=True)
class Schema:
    """What a tool is called, what it is for, and what it takes."""
    name: str
    purpose: str
    argument: str
    kind: type                      # str, int or float
    function: object

    @classmethod
    def of(cls, function):
        """The schema of a function of one argument, from its signature and docstring. Raises UserError for others."""
        parameters = list(inspect.signature(function).parameters.values())
        kind = parameters[0].annotation if len(parameters) == 1 else None
        if kind not in (str, int, float):
            raise UserError(f"{function.__name__} can't be a tool: it has to take one argument that is annotated as str, "
                            "int or float")
        purpose = (inspect.getdoc(function) or "").partition("\n")[0]
        return cls(function.__name__, purpose, parameters[0].name, kind, function)


class Toolbox:
    """Tools by name, and the one way to run them."""

    def __init__(self, *functions, seconds=SECONDS):
        self.schemas = {schema.name: schema for schema in map(Schema.of, functions)}
        self.seconds = seconds

    def run(self, call):
        """The result of a call, a text; an error text, which begins with "error", where there is none."""
        try:
            name, argument = parse_call(call)
            schema = self.schemas.get(name)
            if schema is None:
                raise ToolError(f"there is no tool {name}, only {', '.join(self.schemas) or 'none'}")
            if len(argument) > LONGEST:
                raise ToolError(f"the argument is longer than {LONGEST} characters")
            return " ".join(str(in_time(schema.function, converted(schema, argument), self.seconds)).split())[:LONGEST]
        except (ToolError, ValueError) as error:
            return f"error: {error}"[:LONGEST]


def converted(schema, argument):
    """The argument as the tool's type has it."""
    try:
        return schema.kind(argument)
    except ValueError:
        raise ToolError(f"{schema.name} takes {schema.kind.__name__}, not {argument!r}") from None


def in_time(function, argument, seconds):
    """function(argument); ToolError where it fails, or has not ended after so many seconds.

    A thread can't be ended from outside: one that runs too long is left alone, and does not keep the program from ending.
    """
    outcome = {}

    def work():
        try:
            outcome["result"] = function(argument)
        except ToolError as error:
            outcome["error"] = str(error)
        except Exception as error:          # a user's own tool may fail in any way: the model is told, and goes on
            outcome["error"] = f"{function.__name__} failed: {type(error).__name__}: {error}"

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if "result" not in outcome:
        raise ToolError(outcome.get("error", f"{function.__name__} took longer than {seconds:g} seconds"))
    return outcome["result"]


# ---- arithmetic ----

SIGNS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
         ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod}


def calculator(expression: str):
    """Compute an expression of numbers with + - * / // % ** and brackets."""
    return shown(value(parse_expression(expression)))


def parse_expression(text):
    """The syntax tree of an expression. ToolError where there is none."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolError(f"{text!r} is not an expression") from None


def value(node):
    """The value of a syntax tree, an exact fraction. ToolError for whatever is not arithmetic."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        if isinstance(node.value, float) and not math.isfinite(node.value):
            raise ToolError("a number is too large")
        return bounded(Fraction(str(node.value)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        inner = value(node.operand)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp):
        return combined(node.op, value(node.left), value(node.right))
    raise ToolError("only numbers, + - * / // % ** and brackets can be computed")


def combined(sign, left, right):
    """left sign right."""
    if isinstance(sign, ast.Pow):
        return power(left, right)
    if type(sign) not in SIGNS:
        raise ToolError("only numbers, + - * / // % ** and brackets can be computed")
    try:
        return bounded(Fraction(SIGNS[type(sign)](left, right)))
    except ZeroDivisionError:
        raise ToolError("division by zero") from None


def power(base, exponent):
    """base ** exponent, of a whole exponent; how large it gets is known before it is computed."""
    if exponent.denominator != 1 or abs(exponent) > 1000:
        raise ToolError("an exponent has to be a whole number of at most 1000")
    if base == 0 and exponent < 0:
        raise ToolError("division by zero")
    size = max(abs(base.numerator), base.denominator)
    if abs(int(exponent)) * math.log10(max(size, 1)) > 41:
        raise ToolError("a number is too large")
    return bounded(base ** int(exponent))


def bounded(number):
    if max(abs(number.numerator), number.denominator) > LARGEST:
        raise ToolError("a number is too large")
    return number


def shown(number):
    """A number as a person would write it: whole, or with at most 4 digits behind the point."""
    if number.denominator == 1:
        return str(number.numerator)
    rounded = round(number * 10 ** 4)
    sign, digits = "-" if rounded < 0 else "", f"{abs(rounded):05d}"
    return f"{sign}{digits[:-4]}.{digits[-4:]}".rstrip("0").rstrip(".")


# ---- equations ----

def solve(equation: str):
    """Solve an equation of degree one or two in one unknown, such as 3*x + 4 = 10."""
    sides = equation.split("=")
    if len(sides) != 2:
        raise ToolError("an equation has one sign =, such as 3*x + 4 = 10")
    trees = [parse_expression(re.sub(r"(?<=\d)\s*(?=[A-Za-z(])", "*", side)) for side in sides]     # 3x is 3*x
    names = sorted({node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)})
    if len(names) != 1:
        raise ToolError(f"one unknown is expected, and here are {len(names)}")
    left, right = map(polynomial, trees)
    return roots(names[0], *(a - b for a, b in zip(left, right)))


def polynomial(node):
    """The coefficients (c, b, a) of c + b x + a x^2 that a syntax tree is. ToolError for other trees."""
    if isinstance(node, ast.Name):
        return Fraction(0), Fraction(1), Fraction(0)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return tuple(-c for c in polynomial(node.operand))
    if not any(isinstance(inner, ast.Name) for inner in ast.walk(node)):
        return value(node), Fraction(0), Fraction(0)
    if isinstance(node, ast.BinOp):
        sign = type(node.op)
        if sign in (ast.Add, ast.Sub):
            pairs = zip(polynomial(node.left), polynomial(node.right))
            return tuple(bounded(SIGNS[sign](a, b)) for a, b in pairs)
        if sign is ast.Mult:
            return product(polynomial(node.left), polynomial(node.right))
        if sign is ast.Div:
            return product(polynomial(node.left), (combined(ast.Div(), Fraction(1), value(node.right)),))
        if sign is ast.Pow and value(node.right) == 2:
            return product(polynomial(node.left), polynomial(node.left))
    raise ToolError("only equations of degree one or two can be solved")


def product(p, q):
    """The product of two polynomials, the coefficients of the lowest power first."""
    result = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            result[i + j] = bounded(result[i + j] + a * b)
    if any(result[3:]):
        raise ToolError("only equations of degree one or two can be solved")
    return tuple(result[:3])


def roots(name, c, b, a):
    """The solutions of c + b x + a x^2 = 0, in words."""
    if a == 0 and b == 0:
        return f"every {name}" if c == 0 else f"no {name}"
    if a == 0:
        return f"{name} = {shown(-c / b)}"
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        return f"no {name}"
    root = square_root(discriminant)
    solutions = sorted({(-b - root) / (2 * a), (-b + root) / (2 * a)})
    return " or ".join(f"{name} = {shown(solution)}" for solution in solutions)


def square_root(number):
    """The root of a fraction: exact where it is a fraction itself, else to 20 digits behind the point."""
    exact = Fraction(math.isqrt(number.numerator), math.isqrt(number.denominator))
    if exact * exact == number:
        return exact
    return Fraction(math.isqrt(number.numerator * 10 ** 40 // number.denominator), 10 ** 20)


# ---- documents ----

class Search:
    """A search over the text files of a folder, by words (BM25: Robertson and Zaragoza 2009).

    Each line of a file is a passage. The score of a passage d for the words w of a question, of N passages:

        (1)  idf(w)  = log(1 + (N - n(w) + 0.5) / (n(w) + 0.5))             n(w): passages with the word
        (2)  score   = sum over w of idf(w) f(w, d) (k + 1) / (f(w, d) + k (1 - b + b |d| / mean |d|))

    f(w, d): how often the word stands in d; |d|: its number of words; k = 1.5, b = 0.75.
    """

    def __init__(self, passages):
        self.passages = [passage.strip() for passage in passages if passage.strip()]
        self.words = [words_of(passage) for passage in self.passages]

    @classmethod
    def folder(cls, path):
        """Over all .txt and .md files of a folder. Raises UserError where there are none, or one is not UTF-8."""
        files = sorted(file for ending in ("*.txt", "*.md") for file in Path(path).rglob(ending))
        if not files:
            raise UserError(f"there is no .txt or .md file in {path} to search in: give a folder with documents")
        try:
            return cls(line for file in files for line in file.read_text(encoding="utf-8-sig").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the documents in {path} can't be read as UTF-8 text: {error}") from None

    def search(self, words: str):
        """Find in the documents the line that is most about some words."""
        scores = self.scores(words_of(words))
        best = max(range(len(scores)), key=scores.__getitem__, default=None)
        if best is None or scores[best] == 0:
            raise ToolError("nothing was found")
        return self.passages[best]

    def scores(self, words, k=1.5, b=0.75):
        """The score (2) of each passage."""
        N, mean = len(self.words), sum(map(len, self.words)) / max(1, len(self.words))
        scores = [0.0] * N
        for w in set(words):
            n = sum(w in passage for passage in self.words)
            idf = math.log(1 + (N - n + 0.5) / (n + 0.5))                                       # (1)
            for i, passage in enumerate(self.words):
                f = passage.count(w)
                scores[i] += idf * f * (k + 1) / (f + k * (1 - b + b * len(passage) / mean))    # (2)
        return scores


def words_of(text):
    return re.findall(r"\w+", text.lower())
