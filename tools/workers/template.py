"""A reward for kac: reads a count and so many objects, answers a line of numbers for each (docs/workers.md)."""
import sys


def score(sequence: str) -> float:  # put your own here
    return (sequence.count("G") + sequence.count("C")) / len(sequence)


if "--help" in sys.argv:
    sys.exit(print(__doc__))
while count := sys.stdin.readline():
    for _ in range(int(count)):
        print(score(sys.stdin.readline().rstrip("\n")), flush=True)
