"""The blocks of 4 KiB of an image that are nowhere in another, at any multiple of 4 KiB.

    new_blocks.py BASE TARGET > BLOCKS

What a client with an index of blocks by their digests has to fetch at least.
"""

import hashlib
import sys

BLOCK = 4096


def blocks(path):
    with open(path, "rb") as image:
        while block := image.read(BLOCK):
            yield hashlib.sha256(block).digest(), block


base, target = sys.argv[1:]
known = {digest for digest, _ in blocks(base)}
for digest, block in blocks(target):
    if digest not in known:
        known.add(digest)
        sys.stdout.buffer.write(block)
