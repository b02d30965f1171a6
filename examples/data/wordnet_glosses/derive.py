#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Derives glosses.txt beside this file from WordNet's data.noun.

usage: derive.py [/usr/share/wordnet/data.noun]      (Debian: apt install wordnet-base)

The format of data.noun is in wndb(5WN).
"""
import re
import sys
from pathlib import Path

TOKENS = 32768  # what the first half of the longest text needs; the end of a gloss counts as one


def read_definitions(path):
    """Yields the gloss of each synset up to its first example, which stands in double quotes."""
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith("  "):  # the licence
            continue
        definition = line.split(" | ", 1)[1].split('"', 1)[0].strip().rstrip(";").strip()
        if definition:
            yield definition


def main():
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/wordnet/data.noun")
    glosses, tokens = [], 0
    for definition in read_definitions(source):
        if tokens >= TOKENS:
            break
        glosses.append(definition)
        tokens += len(re.findall(r"[a-z0-9]+(?:'[a-z0-9]+)*", definition.lower())) + 1
    target = Path(__file__).resolve().parent / "glosses.txt"
    with open(target, "w", encoding="ascii", newline="\n") as file:
        file.write("# Derived from WordNet 3.0, (c) 2006 Princeton University; see LICENSE.\n")
        file.writelines(f"{gloss}\n" for gloss in glosses)
    print(f"{len(glosses)} glosses, {tokens} tokens")


if __name__ == "__main__":
    main()
