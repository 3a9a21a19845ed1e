"""Applies a patch: a second applier, written from docs/formats/patch.md alone.

    python3 patch.py BASE PATCH OUT [PARTITIONS]

It keeps everything in memory and calls the programs `gzip`, `lz4` and `zstd` (1.5.4, and for members of
1.5.7 what the environment's ZSTD_1_5_7 names), and libzstd: it is here to show that the page tells all, not
to be used.
"""

import bisect
import ctypes
import hashlib
import lzma
import os
import struct
import subprocess
import sys
import tempfile
import zlib


# Machines have one version of it, mostly another.
ZSTD_1_5_7 = os.environ.get("ZSTD_1_5_7", "zstd")


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
    if codec[0] == 8:
        # As a frame of its own, which has the block's length in front.
        frame = b"\x02\x21\x4c\x18" + len(packed).to_bytes(4, "little") + packed
        return run(["lz4", "-dqc"], frame)
    if codec[0] == 4:
        return run(["zstd", "-dqc"], packed)
    if codec[0] == 7:
        return inodes(codec, packed)
    if codec[0] == 5:
        return lzma.decompress(packed, lzma.FORMAT_XZ)
    if codec[0] == 6:
        return run(["zstd", "-dqc"], packed)
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
    if codec[0] == 5:
        return xz(*codec[1:], plain)
    if codec[0] == 6:
        # The very version is needed; a pipe is told from a file.
        with tempfile.NamedTemporaryFile() as file:
            file.write(plain)
            file.flush()
            told = [ZSTD_1_5_7, f"-{codec[1]}", "-qc", "--check" if codec[2] else "--no-check"]
            return run(told + [file.name]) if codec[4] else run(told, plain)
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


def xz(preset, extreme, check, dictionary, blocks, plain):
    if extreme:
        preset |= lzma.PRESET_EXTREME
    filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": 1 << dictionary}]
    if not blocks:
        return lzma.compress(plain, lzma.FORMAT_XZ, check, filters=filters)
    # The library's encoder for threads is out of reach: its blocks are those of files with one block
    # each, with lengths in their headers.
    size = max(3 << dictionary, 1 << 20)
    bound = size + 3 * -(-size // (1 << 16)) + 1
    out, records = b"\xfd7zXZ\0" + framed(bytes([0, check])), b""
    for start in range(0, len(plain), size):
        block = plain[start : start + size]
        single = lzma.compress(block, lzma.FORMAT_XZ, check, filters=filters)
        head = 4 * (single[12] + 1)
        index = 4 * (int.from_bytes(single[-8:-4], "little") + 1)
        unpadded = Numbers(single[-12 - index :])
        unpadded.take(2)
        unpadded = unpadded.number()
        check_len = {0: 0, 1: 4, 4: 8, 10: 32}[check]
        packed = unpadded - head - check_len
        # Room is left for the lengths that the block could have had.
        room = -(-(1 + 1 + len(varint(bound)) + len(varint(size)) + 3) // 4) * 4
        fields = bytes([room // 4, 0xC0]) + varint(packed) + varint(len(block)) + single[14:17]
        out += framed(fields.ljust(room, b"\0")) + single[12 + head : -12 - index]
        records += varint(room + 4 + packed + check_len) + varint(len(block))
    index = b"\0" + varint(-(-len(plain) // size)) + records
    index = framed(index.ljust(-(-len(index) // 4) * 4, b"\0"))
    footer = (len(index) // 4 - 1).to_bytes(4, "little") + bytes([0, check])
    return out + index + zlib.crc32(footer).to_bytes(4, "little") + footer + b"YZ"


def framed(data):
    return data + zlib.crc32(data).to_bytes(4, "little")


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def run(program, data=b""):
    return subprocess.run(program, input=data, stdout=subprocess.PIPE, check=True).stdout


def signed(number):
    return (number >> 1) ^ -(number & 1)


def entries(number):
    """What became of numbers: each with where it went."""
    told, old, by = [], 0, 0
    for _ in range(number()):
        old, by = old + number(), by + signed(number())
        told.append((old, old + by))
        assert max(told[-1]) < 2**32
    return told


def types(copied, at, stop, names, types):
    """Changes the numbers in the records of BTF in these bytes."""
    about = {1: ".", 3: "tt.", 4: "nt.", 5: "nt.", 6: "n.", 13: "nt", 14: ".", 15: "t..", 17: ".", 19: "n.."}
    words = ""
    while at + 4 <= stop:
        (value,) = struct.unpack_from("<I", copied, at)
        if not words:
            (info,) = struct.unpack_from("<I", copied, at + 4) if at + 8 <= stop else (0,)
            kind, count = info >> 24 & 31, 1 if info >> 24 & 31 in (1, 3, 14, 17) else info & 0xFFFF
            third = "t" if kind in (2, 8, 9, 10, 11, 12, 13, 14, 17, 18) else "."
            words = "n" + ("." if info >> 24 else "t") + third + about.get(kind, "") * count
        for told in {"n": names, "t": types, ".": []}[words[0]]:
            found = bisect.bisect(told, (value, 2**64)) - 1
            if found >= 0:
                moved = told[found][1] + value - told[found][0]
                if moved < 2**32:
                    struct.pack_into("<I", copied, at, moved)
                break
        at, words = at + 4, words[1:]


class Pointers:
    """The pointers of a run, which are changed in the bytes that it copies."""

    def __init__(self, number, position, numberings):
        number()  # copies
        self.origin = position + signed(number())
        self.spaces = [(number(), self.layout(number), self.layout(number)) for _ in range(number())]
        self.ranges, at = [], 0
        for _ in range(number()):
            start = at + number()
            at, form = start + number(), number()
            if form == 2:
                size = number()
                form = size, [(number(), number(), number()) for _ in range(number())]
                self.ranges.append((start, at, 2, form))
            elif form == 5:
                shared, own = zip(*((numberings[number()], entries(number)) for _ in range(2)))
                self.ranges.append((start, at, 5, list(zip(own, shared))))
            else:
                self.ranges.append((start, at, form, number()))

    def layout(self, number):
        stretches, at = [], 0
        for _ in range(number()):
            start, address, size = at + number(), signed(number()), number()
            stretches.append((start, address, size))
            at = start + size
        return stretches

    def follow(self, pieces):
        copies, new = [], 0
        for literal, start, size in pieces:
            copies += [(start - self.origin, -size, new + literal)] if size else []
            new += literal + size
        self.moves, end = [], 0
        for old, size, new in sorted(copy for copy in copies if copy[0] >= 0):
            covered = max(end - old, 0)
            if covered < -size:
                self.moves.append((old + covered, new + covered))
                end = old - size

    def address(self, space, side, at):
        for start, address, size in self.spaces[space][side]:
            if start <= at < start + size:
                return address + (at - start) // self.spaces[space][0]

    def moved(self, space, address):
        unit, old, _ = self.spaces[space]
        for start, first, size in old:
            by = (address - first) % 2**64 * unit
            if by < size:
                move = bisect.bisect(self.moves, (start + by, 2**64)) - 1
                if move >= 0:
                    return self.address(space, 2, self.moves[move][1] + start + by - self.moves[move][0])
                return None

    def number(self, value, places, space, counted, ahead=0):
        """What a pointer of this value becomes, if it is known: it is counted from zero, itself, or its page."""
        begin = [0, 0]
        if counted != "zero":
            begin = [self.address(space, 1 + side, place) for side, place in enumerate(places)]
            if None in begin:
                return None
            begin = [here & -4096 if counted == "page" else here + ahead for here in begin]
        target = self.moved(space, begin[0] + value)
        return None if target is None else target - begin[1]

    def pointer(self, copied, at, old, new, width, space, ahead=0):
        """Changes the pointer at this place of the copied bytes, if it is known."""
        size = 8 if width == 2 else 4
        value = int.from_bytes(copied[at : at + size], "little", signed=True)
        counted = "zero" if width else "itself"
        value = self.number(value, (old + at, new + at), space, counted, ahead)
        if value is None:
            return False
        copied[at : at + size] = (value % 256**size).to_bytes(size, "little")
        return True

    def aarch64(self, copied, at, stop, old, new, space):
        """Changes the pointers in instructions."""

        def changed(value, places, counted):
            moved = self.number(value, places, space, counted) if value else None
            return None if moved is None else (moved + 2**63) % 2**64 - 2**63

        words = [word for (word,) in struct.iter_unpack("<I", copied[at : at + (stop - at) // 4 * 4])]
        held = {}
        for i, one in enumerate(words):
            kind, value = operand(one)
            register, base = one & 31, one >> 5 & 31
            places, becomes = (old + at + 4 * i, new + at + 4 * i), None
            if kind == "page":
                behind = []
                for word in words[i + 1 : i + 8]:
                    other, offset = operand(word)
                    if other == "page" and word & 31 == register:
                        break
                    if other == "offset" and word >> 5 & 31 == register:
                        behind.append(offset)
                becomes = changed(value + sum(behind[:1]), places, "page")
                becomes = None if becomes is None else becomes & -4096
                held.pop(register, None)
                if with_operand(one, becomes) is not None:
                    held[register] = i, places, value, becomes
            elif kind == "branch":
                becomes = changed(value, places, "itself")
            elif kind == "offset" and base in held:
                since, places, page, new_page = held[base]
                is_load = one >> 26 & 1 == 0 and one & 0xC00000
                if base == register and (one >> 24 == 0x91 or is_load):
                    del held[base]
                if i - since <= 7:
                    becomes = changed(page + value, places, "page")
                    is_there = becomes is not None and becomes & -4096 == new_page
                    becomes = becomes & 4095 if is_there else None
            one = with_operand(one, becomes)
            if one is not None:
                struct.pack_into("<I", copied, at + 4 * i, one)

    def change(self, copied, old, new):
        for start, end, form, what in self.ranges:
            at, stop = max(start - old, 0), min(end - old, len(copied))
            if at >= stop:
                continue
            if form == 2:
                size, fields = what
                for entry in range((old + at - start) // size * size + start, old + stop, size):
                    for place, width, space in fields:
                        place += entry - old
                        if at <= place and place + (8 if width == 2 else 4) <= stop:
                            self.pointer(copied, place, old, new, width, space)
            elif form == 3:
                at += (start - old - at) % 4
                while at + 12 <= stop:
                    size, by = struct.unpack_from("<II", copied, at)
                    fits = 12 <= size < 4096 and by and (size | by) % 4 == 0
                    at += 12 if fits and self.pointer(copied, at + 8, old, new, 0, what) else 4
            elif form == 5:
                types(copied, at + (start - old - at) % 4, stop, *what)
            elif form == 4:
                self.aarch64(copied, at + (start - old - at) % 4, stop, old, new, what)
            else:
                while at < stop:
                    place = opcode(copied[at], copied[at + 1] if at + 1 < stop else 0, form)
                    behind, width = place or (0, 0)
                    fits = place and at + behind + 4 <= stop
                    if fits and self.pointer(copied, at + behind, old, new, width, what, 4 - 4 * width):
                        at += behind + 3
                    at += 1


def opcode(one, two, absolute):
    """How far behind an opcode a pointer stands, and its width."""
    if one in (0xE8, 0xE9):
        return 1, 0
    if one == 0x0F and 0x80 <= two < 0x90:
        return 2, 0
    if one & 0xC7 == 0x05:
        return 1, 0
    if not absolute:
        return None
    if one == 0xC7 and 0xC0 <= two < 0xC8 or one == 0x81 and two >= 0xC0:
        return 2, 1
    if 0xB8 <= one <= 0xBF or one == 0x68:
        return 1, 1
    if one & 0xC7 == 0x04 and two & 7 == 5:
        return 2, 1
    return (1, 1) if one & 0xC0 == 0x80 and one & 7 != 4 else None


# Of instructions of AArch64: bits and what they are, what that makes it, the bits of its number, whether that
# is signed, and its factor, if it is not told by the two highest bits.
INSTRUCTIONS = [
    (0x9F000000, 0x90000000, "page", [29, 30, *range(5, 24)], True, 4096),
    (0x7C000000, 0x14000000, "branch", range(26), True, 4),
    (0xFF000010, 0x54000000, "branch", range(5, 24), True, 4),
    (0x7E000000, 0x34000000, "branch", range(5, 24), True, 4),
    (0x7E000000, 0x36000000, "branch", range(5, 19), True, 4),
    (0xFFC00000, 0x91000000, "offset", range(10, 22), False, 1),
    (0x3B000000, 0x39000000, "offset", range(10, 22), False, None),
]


def instruction(one):
    for mask, wanted, *rest in INSTRUCTIONS:
        if one & mask == wanted:
            kind, bits, is_signed, factor = rest
            is_wide = kind == "offset" and one & 0xC4800000 == 0x04800000
            return kind, bits, is_signed, factor or (16 if is_wide else 1 << (one >> 30))
    return None, [], False, 1


def operand(one):
    """What an instruction of AArch64 is, and its number."""
    kind, bits, is_signed, factor = instruction(one)
    value = sum((one >> bit & 1) << i for i, bit in enumerate(bits))
    if is_signed and value >> len(bits) - 1:
        value -= 1 << len(bits)
    return kind, value * factor


def with_operand(one, value):
    """The instruction with another number, if it can be written there."""
    kind, bits, _, factor = instruction(one)
    if value is None:
        return None
    for i, bit in enumerate(bits):
        one = one & ~(1 << bit) | (value // factor >> i & 1) << bit
    return one if operand(one) == (kind, value) else None


class Applier:
    def __init__(self, base, patch):
        head = Numbers(patch)
        assert head.take(8) == b"\x89SIP\r\n\x1a\n" and head.number() == 1, "not a patch"
        fields = Numbers(head.take(head.number()))
        names = [[fields.take(fields.number()) for _ in range(fields.number())] for _ in range(2)]
        known = {
            b"pack-zstd-1.5.4",
            b"pack-zstd-1.5.7",
            b"pack-lz4-hc",
            b"lz4-block",
            b"pack-deflate",
            b"pack-xz",
            b"pack-zstd-block-1.5.4",
            b"ext4-inodes",
            b"pointers",
            b"pointers-in-pieces",
            b"pointers-aarch64",
            b"pointers-btf",
        }
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
        self.numberings = []

    def number(self, stream):
        return Numbers.number(self.streams[stream])

    def codec(self):
        first = self.number(0)
        return [first] + [self.number(0) for _ in range([0, 3, 1, 2, 1, 5, 4, 3, 0][first])]

    def apply(self):
        while part := self.number(0):
            if part == 1:
                self.target += self.make(self.number(0), self.number(0))
            elif part == 2:
                left, codec, plain = self.number(0), self.codec(), bytearray()
                while len(plain) < left:
                    plain += self.make(self.number(0), self.number(0))
                self.target += pack(codec, bytes(plain))
            elif part == 4:
                self.numberings.append(entries(lambda: self.number(0)))
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
        whole, first = (self.number(0), self.number(0)) if kind & 16 else (length, 0)
        pointers = Pointers(lambda: self.number(0), self.position, self.numberings) if kind & 8 else None
        kind &= 7
        made = bytearray()
        pieces = self.pieces(whole)
        if pointers:
            pieces = list(pieces)
            pointers.follow(pieces)
        end = 0
        for literal, start, size in pieces:
            begin, end = end, end + literal + size
            skipped = max(first - begin, 0)
            count = min(end, first + length) - begin - skipped
            if count <= 0:
                continue
            if literal:
                made += self.streams[6 + 2 * kind].take(count)
                continue
            start += skipped
            copied = bytearray(self.read(start, count))
            if pointers:
                pointers.change(copied, start - pointers.origin, first + len(made))
            made += self.correct(copied, kind)
        assert len(made) == length, "a length within a part"
        return made

    def pieces(self, left):
        """The length of a literal, or where a copy is from and how long it is."""
        while left:
            literal = self.number(1)
            left, self.position = left - literal, self.position + literal
            yield literal, 0, 0
            if left:
                size, start = self.number(2), self.position + signed(self.number(3))
                left, self.position = left - size, start + size
                yield 0, start, size

    def read(self, at, size):
        copied = b""
        while len(copied) < size:
            if at < len(self.base):
                found = self.base[at : at + size - len(copied)]
            else:
                start, plain = next(view for view in reversed(self.views) if view[0] <= at)
                found = plain[at - start : at - start + size - len(copied)]
            assert found, "it copies from nowhere"
            copied += found
            at += len(found)
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


def installed(root, partitions, path, size):
    """What is installed of a member of an archive."""
    top, below = path.split(b"/", 1)
    if top == b"partitions":
        with open(os.path.join(os.fsencode(partitions), below), "rb") as file:
            return file.read(size)
    assert top == b"system", path
    with open(os.path.join(os.fsencode(root), below), "rb") as file:
        return file.read()


def files(root, partitions, patch):
    """The content of the files that stand for the base, and the patch behind their list."""
    front = Numbers(patch[8:])
    assert front.number() == 2
    length, packed = front.number(), front.number()
    start = 8 + front.at
    names = lzma.decompress(patch[start : start + packed])
    assert len(names) == length
    names, path, base = Numbers(names), b"", b""
    while names.at < length:
        size, shared, more = names.number(), names.number(), names.number()
        path = path[:shared] + names.data[names.at : names.at + more]
        names.at += more
        content = installed(root, partitions, path, size)
        assert len(content) == size, path
        base += content
    return base, patch[start + packed :]


def main():
    base, patch, out, partitions = [*sys.argv[1:], ""][:4]
    with open(patch, "rb") as patch:
        patch = patch.read()
    if os.path.isdir(base):
        assert patch.startswith(b"\x89SIT\r\n\x1a\n")
        base, patch = files(base, partitions, patch)
    else:
        with open(base, "rb") as file:
            base = file.read()
    target = Applier(base, patch).apply()
    with open(out, "wb") as file:
        file.write(target)


if __name__ == "__main__":
    main()
