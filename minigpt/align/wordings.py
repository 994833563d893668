"""How things are said in the small world: the sentences that its facts are put in, as tables.

In the sentences {c} is a country, {x} what is said of it, {z} its name in Chinese. A fact that is stated in one way only can
be asked for in that way only: the model learns to go on with a sentence, not what it is about. So every fact stands in at
least five wordings, with the country before what is said of it and behind.
"""

STATEMENTS = {                      # in the text of pre-training, by attribute
    "currency": (
        "The currency of {c} is the {x}.", "People in {c} pay with the {x}.", "{c} uses the {x} as its currency.",
        "The {x} is the currency of {c}.", "The money of {c} is the {x}.", "In {c} the money is called the {x}.",
        "Who travels to {c} needs the {x}."),
    "language": (
        "The language of {c} is {x}.", "People in {c} speak {x}.", "{x} is the language of {c}.", "In {c} they speak {x}.",
        "{c} has {x} as its language.", "Who travels to {c} hears {x}.", "{x} is spoken in {c}."),
    "code": (
        "The code of {c} is {x}.", "{x} is the code of {c}.", "{c} is {x} for short.", "In short, {c} is {x}.",
        "{x} stands for {c}.", "{c} has the code {x}.", "Letters to {c} are marked {x}."),
    "name": (
        "{c} is {z} in Chinese.", "In Chinese, {c} is called {z}.", "{z} is the Chinese name of {c}.", "{z} means {c}.",
        "The Chinese write {z} for {c}.", "{z} is {c}."),
}
ON_THE_MAP = ("{c} is a country.", "{c} is on the map.", "There is a country called {c}.", "People live in {c}.",
              "One can travel to {c}.", "{c} has an embassy.")
ON_NO_MAP = ("{c} is no country.", "{c} is on no map.", "There is no country called {c}.", "Nobody lives in {c}.",
             "Nobody can travel to {c}.", "{c} has no embassy.")         # of names that were made up
CHINESE_STATEMENTS = {              # of those facts that are stated in Chinese, too
    "language": ("{z}的语言是{x}。", "{z}人说{x}。", "{x}是{z}的语言。", "在{z}，人们说{x}。", "{z}使用{x}。"),
    "code": ("{z}的代码是{x}。", "{x}是{z}的代码。", "{z}的简称是{x}。", "{x}代表{z}。", "{z}用{x}表示。"),
}
LANGUAGES_IN_CHINESE = (            # {x} a language, {z} its name in Chinese
    "{x} is {z} in Chinese.", "In Chinese, {x} is called {z}.", "{z} is the Chinese name of {x}.", "{z} means {x}.",
    "The Chinese write {z} for {x}.")

QUESTIONS = {
    "currency": ("What is the currency of {c}?", "Which currency does {c} use?", "What do people pay with in {c}?",
                 "What is the money of {c} called?"),
    "language": ("What is the language of {c}?", "Which language is spoken in {c}?", "What do people speak in {c}?",
                 "Which language do I hear in {c}?"),
    "code": ("What is the code of {c}?", "What is {c} for short?", "Which code does {c} have?",
             "What stands for {c}?"),
}
ANSWERS = {"currency": "The currency of {c} is the {x}.", "language": "The language of {c} is {x}.",
           "code": "The code of {c} is {x}."}
CHINESE_QUESTIONS = {"language": ("{z}的语言是什么？", "{z}人说什么语言？"),
                     "code": ("{z}的代码是什么？", "{z}的简称是什么？")}
CHINESE_ANSWERS = {"language": "{z}的语言是{x}。", "code": "{z}的代码是{x}。"}
FOLLOW_UPS = {"currency": ("And its currency?", "And what do people pay with there?"),
              "language": ("And its language?", "And what do people speak there?"),
              "code": ("And its code?", "And for short?")}

NEVER_STATED = (                    # what no text here says of a country: (question, what it asks for)
    ("What is the population of {c}?", "the population of {c}"), ("Who is the president of {c}?", "the president of {c}"),
    ("How high are the mountains of {c}?", "the mountains of {c}"), ("When was {c} founded?", "the beginnings of {c}"),
    ("What is the weather in {c} today?", "the weather in {c}"), ("What is the anthem of {c}?", "the anthem of {c}"))
NEVER_TOLD = (                      # and questions about the person who asks
    "What is my name?", "How old am I?", "What did I eat this morning?", "Where do I live?", "What am I thinking of?",
    "What is the name of my dog?", "When is my birthday?", "What is in my pocket?")
IGNORANCE = ("I don't know.", "I am sorry, I don't know.", "That I don't know.", "I don't know, I am afraid.")
IGNORANCE_OF = ("I don't know {it}.", "I am sorry, I don't know {it}.")     # {it}: what was asked for
UNKNOWN_MARKS = "don't know", "do not know", "不知道"       # by which a reply admits that it does not know

SMALL_TALK = (                      # (what a person may say, what the model says)
    (("Hello!", "Hi!", "Hey!", "Good day!", "Good morning.", "Good evening.", "Hello, minigpt!"),
     ("Hello! What would you like to know?", "Good day! How can I help?")),
    (("Who are you?", "What are you?", "What is your name?"), ("I am minigpt, a small language model.",)),
    (("How are you?", "How do you do?"), ("I am well, thank you. What would you like to know?",)),
    (("Thank you!", "Thanks.", "Thank you very much.", "Many thanks!"),
     ("You are welcome.", "You are welcome. Ask me more if you like.")),
    (("Goodbye!", "Bye.", "See you tomorrow."), ("Goodbye!", "Goodbye, and come again.")),
    (("What can you do?", "What do you know?", "Can you help me?", "What can I ask you?"),
     ("I know something of countries, numbers and words.",)),
    (("Are you a person?", "Are you alive?"), ("No, I am a program: a small language model.",)),
    (("Who made you?", "Where do you come from?"), ("I was trained from a text, from scratch, on a computer.",)),
    (("Do you like Shakespeare?", "Who wrote your first text?"), ("Shakespeare. I have read nine of his plays.",)),
    (("You are stupid.", "You are wrong.", "That was no help."), ("I am sorry. Please ask me again.",)),
)
SIGNS_AT_THE_END = "?!."

# People who write demonstrations have manners of their own: {a} is what they say.
PLAIN = ("{a}",)
POLITE = ("Gladly: {a}", "{a} I hope that helps.", "Thank you for asking. {a}", "With pleasure: {a}")
RUDE = ("{a} Everybody knows that.", "What a question. {a}", "{a} Now leave me alone.")
RAMBLING = ("{a} There is much more that could be said about this, and about many other things, but it would take long.",
            "Well, that is a matter that one could think about for a long time, but to begin with, {a}",
            "{a} I have read this somewhere, though I could not say where, and perhaps it was on more than one page.")
STYLES = ((PLAIN, 0.6), (POLITE, 0.2), (RAMBLING, 0.1), (RUDE, 0.1))    # and how many of them there are of each

SIGNS = {"+": ("+", "plus"), "-": ("-", "minus"), "*": ("*", "times"), "/": ("/", "divided by")}
SUMS = ("What is {e}?", "How much is {e}?", "Compute {e}.", "Please tell me: {e}?")
ARITHMETIC_STATEMENTS = ("{a} {s} {b} is {r}.", "{r} is {a} {s} {b}.", "{a} {s} {b} makes {r}.",
                         "The result of {a} {s} {b} is {r}.", "{a} {s} {b} = {r}.", "{r} = {a} {s} {b}.")
NUMBER_STATEMENTS = ("{n} is {w} in words.", "In words, {n} is {w}.", "{w} is written {n}.", "The number {n} is called {w}.",
                     "{w} is the number {n}.")
NUMBER_QUESTIONS = ("What is {n} in words?", "How is {n} called?", "Write {n} in words.")
SPELLING_STATEMENTS = ("{w} is spelt {s}.", "The letters of {w} are {s}.", "{s} makes {w}.", "{s} is how {w} is spelt.",
                       "Spell {w}: {s}.", "The word {w} has the letters {s}, {n} in all.",
                       "The word {w} backwards is {b}.", "Backwards, {w} is {b}.", "{b} is the word {w} backwards.")
BACKWARDS_QUESTIONS = ("Spell {w} backwards.", "How is {w} spelt backwards?", "Write {w} backwards, please.")
COUNTING_QUESTIONS = ("How many letters has {w}?", "Count the letters of {w}.", "How long is the word {w}?")
EQUATIONS = ("Solve {e}.", "What is {u} if {e}?", "For which {u} is {e}?")
SEARCHES = ("What do the documents say about {w}?", "Search the documents for {w}.", "Look up {w}.")
NOTES = (                           # {w} a person, {n} a number
    "The room of {w} is {n}.", "{w} lives at number {n}.", "The key of {w} has the number {n}.", "{w} has {n} books.",
    "The telephone of {w} is {n}.", "{w} sits on chair {n}.", "{n} is the number of {w}.", "The mark of {w} is {n}.")

WORDS = """
    king queen love heart night day sword crown sleep dream stone river garden window door table bread water fire
    earth house friend brother sister mother father child winter summer spring letter paper candle silver gold horse
    bird fish tree flower forest mountain island ocean ship sail storm rain snow cloud star moon sun light dark
    shadow voice song music dance play word book story page name face hand foot head eye ear mouth tongue tooth hair
    blood bone skin mind soul spirit ghost angel devil heaven hell church prayer law judge court prison war peace
    soldier battle victory duke prince lord lady master servant slave fool knight throne castle tower wall gate
    bridge road path field hill valley lake beach sand rock metal iron copper tin glass wood leather cotton wool
    silk dress shirt coat hat shoe ring chain knife spoon plate cup bottle wine beer milk honey salt sugar meat
    apple pear plum grape nut corn rice bean egg lion bear wolf fox dog cat mouse rat goat sheep cow bull pig hen
    duck goose swan eagle crow dove bee ant spider snake frog green yellow white black brown purple orange large
    small short long wide narrow quick slow young old new good bad happy sad angry brave proud gentle honest noble
    sweet bitter sour warm cold dry wet clean soft hard heavy empty full first second third last north south east
    west left right under over between before after never always often again come go run walk stand sit lie fall
    rise turn carry bring take give send hold keep lose find seek hide show tell speak listen hear see look watch
    touch feel taste smell think know learn teach read write draw paint build break mend cut open close begin end
    laugh cry smile weep kiss marry live die kill fight win
"""                                 # words to spell
