"""Files as a disk or a stranger may leave them."""


def mutated(content, chance, more=()):
    """Bytes with one to three places changed, taken out, doubled, put in, or replaced by one of `more`."""
    for _ in range(chance.choice([1, 1, 3])):
        i = chance.randrange(len(content))
        piece = content[i:i + chance.randint(1, 8)]
        new = chance.choice([bytes([piece[0] ^ 1 << chance.randrange(8)]) + piece[1:], b"", piece * 2,
                             chance.randbytes(len(piece)), b"9" + piece, b"-" + piece, *more])
        content = content[:i] + new + content[i + len(piece):]
    return content
