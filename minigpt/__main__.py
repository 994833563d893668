"""python -m minigpt: the console script."""
from .cli import main

main()
