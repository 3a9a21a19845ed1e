"""Applies a patch: a second applier, written from docs/formats/patch.md alone.

    python3 patch.py BASE PATCH OUT

It keeps everything in memory and calls the programs `gzip`, `lz4` and `zstd`, and libzstd: it is here to
show that the page tells all, not to be used.
"""

import ctypes
import hashlib
import lzma
import subprocess
import sys
import tempfile
import zlib


class Numbers:
    """Bytes that are read from front to back."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        taken = self.data[self.at : self.at + count]
        assert len(taken) == count, "the patch ends too early"
        self.at += count
        return taken

    def number(self):
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7


class Stream:
    """A stream of the body, which asks for its pieces when it needs them."""

    def __init__(self, number, dictionary, body):
        self.number, self.body, self.ahead = number, body, b""
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": dictionary}]
        self.decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)

    def take(self, count):
        while len(self.ahead) < count:
            piece = self.body.take(1)[0]
            assert piece == self.number, "a piece is not in its place"
            self.ahead += self.decoder.decompress(self.body.take(self.body.number()))
        taken, self.ahead = self.ahead[:count], self.ahead[count:]
        return taken


def unpack(codec, packed):
    if codec[0] == 0:
        return packed
    if codec[0] == 1:
        return run(["zstd", "-dqc"], packed)
    if codec[0] == 2:
        return run(["lz4", "-dqc"], packed)
    if codec[0] == 4:
        return run(["zstd", "-dqc"], packed)
    if codec[0] == 7:
        return inodes(codec, packed)
    return zlib.decompress(packed, -15)


def pack(codec, plain):
    if codec[0] == 0:
        return plain
    if codec[0] == 1:
        # From a file, since the frame has the size of its content.
        with tempfile.NamedTemporaryFile() as file:
            file.write(plain)
            file.flush()
            check = "--check" if codec[2] else "--no-check"
            return run(["zstd", f"-{codec[1]}", "-qc", check, file.name])
    if codec[0] == 2:
        return run(["lz4", "-l", f"-{codec[1]}", "-qc"], plain)
    if codec[0] == 4:
        zstd = ctypes.CDLL("libzstd.so.1")
        assert zstd.ZSTD_versionNumber() == 10504, "another libzstd"
        packed = ctypes.create_string_buffer(len(plain) + (len(plain) >> 8) + 1024)
        return packed[: zstd.ZSTD_compress(packed, len(packed), plain, len(plain), codec[1])]
    if codec[0] == 7:
        return inodes(codec, plain)
    if codec[1] == 0:
        # Without a name the header has ten bytes; the trailer has eight.
        return run(["gzip", "-nc", f"-{codec[2]}"], plain)[10:-8]
    packer = zlib.compressobj(codec[2], zlib.DEFLATED, -15)
    return packer.compress(plain) + packer.flush()


def inodes(codec, table):
    """Takes the checksums of inodes out, or puts them back: it is the same."""
    seed, number, size = codec[1:]
    turned = bytearray(table)
    for start in range(0, len(table), size):
        inode = bytearray(table[start : start + size])
        has_high = size > 128 and int.from_bytes(inode[128:130], "little") >= 4
        places = [124, 125, 130, 131] if has_high else [124, 125]
        for place in places:
            inode[place] = 0
        if any(inode):
            crc = crc32c(seed, number.to_bytes(4, "little"))
            crc = crc32c(crc32c(crc, inode[100:104]), inode)
            for place, byte in zip(places, crc.to_bytes(4, "little")):
                turned[start + place] ^= byte
        number += 1
    return bytes(turned)


def crc32c(crc, data):
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def run(program, data=b""):
    return subprocess.run(program, input=data, stdout=subprocess.PIPE, check=True).stdout


class Applier:
    def __init__(self, base, patch):
        head = Numbers(patch)
        assert head.take(8) == b"\x89SIP\r\n\x1a\n" and head.number() == 1, "not a patch"
        fields = Numbers(head.take(head.number()))
        names = [[fields.take(fields.number()) for _ in range(fields.number())] for _ in range(2)]
        known = {b"pack-zstd-1.5.4", b"pack-lz4-hc", b"pack-deflate", b"pack-zstd-block-1.5.4", b"ext4-inodes"}
        assert known.issuperset(names[0]), f"it needs more than {known}"
        self.base, self.base_len = base, fields.number()
        base_digest = fields.take(32)
        self.target_len, self.target_digest = fields.number(), fields.take(32)
        blocks = [fields.number(), fields.number()]
        fields.number()  # memory
        fields.number()  # work
        dictionaries = [fields.number() for _ in range(fields.number())]
        counts = [-(-size >> log) for size, log in zip([self.base_len, self.target_len], blocks)]
        used = head.take(-(-counts[0] // 8))
        for block in range(counts[0]):
            if used[block // 8] >> block % 8 & 1:
                start = block << blocks[0]
                bytes_of = base[start : start + (1 << blocks[0])]
                assert hashlib.sha256(bytes_of).digest()[:16] == head.take(16), "another base"
        self.digests = [head.take(16) for _ in range(counts[1])]
        self.block = 1 << blocks[1]
        assert hashlib.sha256(base).digest() == base_digest, "another base"
        self.streams = [Stream(i, size, head) if size else None for i, size in enumerate(dictionaries)]
        self.target, self.views, self.end = bytearray(), [], len(base)
        self.position, self.gap, self.run_left, self.body = 0, None, 0, head

    def number(self, stream):
        return Numbers.number(self.streams[stream])

    def codec(self):
        first = self.number(0)
        return [first] + [self.number(0) for _ in range({0: 0, 1: 3, 2: 1, 3: 2, 4: 1, 7: 3}[first])]

    def apply(self):
        while part := self.number(0):
            if part == 1:
                self.target += self.make(self.number(0), self.number(0))
            elif part == 2:
                left, codec, plain = self.number(0), self.codec(), bytearray()
                while len(plain) < left:
                    plain += self.make(self.number(0), self.number(0))
                self.target += pack(codec, bytes(plain))
            else:
                side = self.target if self.number(0) else self.base
                offset, packed_len, plain_len = (self.number(0) for _ in range(3))
                plain = unpack(self.codec(), bytes(side[offset : offset + packed_len]))
                self.views.append((self.end, plain[:plain_len]))
                self.end += plain_len
        assert self.body.at == len(self.body.data), "something follows the end"
        for i, digest in enumerate(self.digests):
            block = self.target[i * self.block : (i + 1) * self.block]
            assert hashlib.sha256(block).digest()[:16] == digest, f"block {i} is wrong"
        assert hashlib.sha256(self.target).digest() == self.target_digest, "the target is wrong"
        return self.target

    def make(self, kind, length):
        made = bytearray()
        while len(made) < length:
            literal = self.number(1)
            made += self.streams[6 + 2 * kind].take(literal) if literal else b""
            self.position += literal
            if len(made) < length:
                size, by = self.number(2), self.number(3)
                self.position += (by >> 1) ^ -(by & 1)
                made += self.correct(bytearray(self.read(size)), kind)
        assert len(made) == length, "a length within a part"
        return made

    def read(self, size):
        copied = b""
        while len(copied) < size:
            at = self.position
            if at < len(self.base):
                found = self.base[at : at + size - len(copied)]
            else:
                start, plain = next(view for view in reversed(self.views) if view[0] <= at)
                found = plain[at - start : at - start + size - len(copied)]
            assert found, "it copies from nowhere"
            copied += found
            self.position += len(found)
        return copied

    def correct(self, copied, kind):
        at = 0
        while at < len(copied):
            if self.run_left:
                count = min(self.run_left, len(copied) - at)
                for residue in self.streams[7 + 2 * kind].take(count):
                    copied[at] = (copied[at] + residue) & 0xFF
                    at += 1
                self.run_left -= count
                continue
            self.gap = self.number(4) if self.gap is None else self.gap
            count = min(self.gap, len(copied) - at)
            at, self.gap = at + count, self.gap - count
            if self.gap == 0 and at < len(copied):
                self.run_left, self.gap = self.number(5), None
        return copied


def main():
    base, patch, out = sys.argv[1:]
    with open(base, "rb") as base, open(patch, "rb") as patch:
        target = Applier(base.read(), patch.read()).apply()
    with open(out, "wb") as file:
        file.write(target)


if __name__ == "__main__":
    main()
