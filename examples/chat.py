"""Talk to a model that train_chat.py has trained.

    python examples/chat.py --checkpoint runs/chat                      the last of ppo, sft that is there
    python examples/chat.py --checkpoint runs/chat/sft                  or one stage
    python examples/chat.py --checkpoint runs/chat --documents notes    with a search over the .txt and .md files in a folder
    echo "What is 123 * 456?" | python examples/chat.py --checkpoint runs/chat

It writes as it goes; when it calls a tool, the call and the result are shown as [calculator(123*456): 56088]. Lines that
begin with a stroke are for the program:

    /probs      from here on, show beside each token the ones that were likeliest in its place; again: no longer
    /tools      tell the model that it has no tools; again: that it has
    /reset      forget the conversation
    /view       show the conversation as the model reads it, in green what it would be trained on
    /quit       end, as Ctrl-D does
"""
import sys
from dataclasses import dataclass
from math import exp
from pathlib import Path

from minigpt import checkpoint
from minigpt.align.chat import Template
from minigpt.align.converse import Speaker
from minigpt.align.tools import Search, Toolbox, calculator, solve
from minigpt.align.world import NO_TOOLS
from minigpt.generate import Engine
from minigpt.sampling import Rules
from minigpt.settings import UserError, program

STAGES = "ppo", "sft"
ALTERNATIVES = 4                    # tokens that /probs shows


@dataclass(frozen=True)
class Settings:
    checkpoint: str                 # folder of a run of train_chat.py, or of one of its stages
    documents: str | None = None    # folder whose .txt and .md files can be searched
    temperature: float = 0.0        # below 1 more of the likely; 0: always the likeliest
    top_p: float = 1.0              # draw from the likeliest that together reach this probability (1: off)
    length: int = 80                # tokens of a reply, at most
    tools: bool = True              # whether the model has tools
    seed: int = 1                   # the same seed gives the same replies

    def __post_init__(self):
        self.rules()
        if self.length < 1 or self.seed < 0:
            raise UserError("--length has to be at least 1 and --seed at least 0")

    def rules(self):
        return Rules(self.temperature, top_p=self.top_p)


class Chat:
    """A conversation in a terminal."""

    def __init__(self, settings, engine, template, toolbox):
        self.settings, self.template, self.speaker = settings, template, Speaker(engine, template, toolbox)
        self.messages, self.probs, self.tools, self.turns = [], False, settings.tools, 0

    def say(self, text):
        """Have the model reply to what the user says, as it comes."""
        asked = [*self.messages, {"role": "user", "content": text}]
        forgotten = self.shorten(asked)
        if forgotten:
            print(f"[the conversation is longer than the model can read: its first {forgotten} messages are forgotten]")
        system = [] if self.tools else [NO_TOOLS]
        turn = self.speaker.begin([*system, *asked], self.settings.rules(), self.settings.seed + 1000 * self.turns,
                                  self.settings.length, self.show, show_result, ALTERNATIVES)
        self.speaker.run()
        unusual = {"end": "", "context": " [the model can read no further: /reset begins anew]"}
        print(unusual.get(turn.reason, f" [{turn.reason}]"))
        self.messages, self.turns = [*asked, *turn.messages], self.turns + 1

    def shorten(self, messages):
        """Take away the oldest exchanges, in place, until the rest leaves room for a reply. Returns how many messages."""
        engine = self.speaker.engine
        forgotten, room = 0, engine.context - min(self.settings.length, engine.context // 4)
        while len(messages) > 1 and len(self.template.prompt(messages)) > room:
            second = next((i for i, m in enumerate(messages) if i and m["role"] == "user"), len(messages) - 1)
            del messages[:second]
            forgotten += second
        return forgotten

    def show(self, turn, token):
        """A token as it comes; with /probs, a line for each, and the likeliest in its place."""
        if self.probs:
            likely = "  ".join(f"{self.name(i)} {exp(log_p):.3f}" for i, log_p in token.top)
            sys.stdout.write(f"{self.name(token.id):>14}   {likely}\n")
        elif token.id not in (self.template.call, self.template.end, self.template.result):
            sys.stdout.write(token.text if not self.calling(turn) else "")
        sys.stdout.flush()

    def calling(self, turn):
        """Whether what is said is part of a call, which is shown as a whole, with its result."""
        said = [token.id for token in turn.job.tokens]
        return self.template.call in said

    def name(self, token):
        return repr(self.template.tokenizer.decode([token]))

    def command(self, word):
        """What a line with a stroke asks for. False where it asks to end."""
        if word == "/reset":
            self.messages = []
            print("[forgotten]")
        elif word == "/probs":
            self.probs = not self.probs
            print("[each token with its alternatives]" if self.probs else "[the text alone]")
        elif word == "/tools":
            self.tools = not self.tools
            print("[the model has tools]" if self.tools else "[the model has no tools]")
        elif word == "/view":
            print(self.template.view(*self.template.render(self.messages)) if self.messages else "[nothing was said]")
        elif word in ("/quit", "/exit"):
            return False
        else:
            print("[/probs, /tools, /reset, /view, /quit]")
        return True


def show_result(turn, call, result):
    """A tool has run."""
    sys.stdout.write(f"[{call}: {result}] ")
    sys.stdout.flush()


def load(folder):
    """The checkpoint that a folder means: itself, or the last stage in it."""
    names = [name for name in STAGES if Path(folder, name, "config.json").exists()]
    return checkpoint.load(Path(folder, names[0]) if names else folder)


def main(settings):
    saved = load(settings.checkpoint)
    template = Template(saved.tokenizer)
    documents = [] if settings.documents is None else [Search.folder(settings.documents).search]
    terminal = sys.stdin.isatty()
    if terminal:
        print(f"{saved.folder}; /probs, /tools, /reset, /view, /quit")
    with Engine(saved.model, saved.tokenizer) as engine:
        chat = Chat(settings, engine, template, Toolbox(calculator, solve, *documents))
        while (line := next_line(terminal)) is not None:
            if line.startswith("/"):
                if not chat.command(line.split()[0]):
                    break
            elif line:
                try:
                    chat.say(line)
                except UserError as error:                  # a question too long, say: the next one may do
                    print(f"[{error}]")


def next_line(terminal):
    """What the user says next; None at the end."""
    try:
        return input("> " if terminal else "").strip()
    except EOFError:
        return None


if __name__ == "__main__":
    program(main, Settings)
