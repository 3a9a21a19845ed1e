"""The delta between two uncompressed tar archives, as in section 11 of the server's specification.

    classic_delta.py BASE TARGET DELTA

A plain implementation with Python's own `tarfile`, as anybody would write it from that section:
both archives are listed, entries that differ are candidates, candidates whose content turns out
to be the same are dropped, and what is left is copied from the target behind a list of names to
remove. It is what our own delta is measured against.
"""

import io
import posixpath
import sys
import tarfile
import time


def listing(archive):
    """The archive's entries by path, and as a set of (path, kind, fingerprint)."""
    entries, triples = {}, set()
    for entry in archive:
        path = entry.name.rstrip("/")
        entries[path] = entry
        if entry.isdir():
            triples.add((path, "dir", None))
        else:
            fingerprint = (entry.mode, entry.devmajor, entry.devminor, entry.type,
                           entry.uid, entry.gid, entry.size, entry.mtime)
            triples.add((path, "file", fingerprint))
    return entries, triples


def candidates(base, target):
    """Paths that are in the target alone, in the base alone, and different in both."""
    base_paths = {path for path, _, _ in base}
    target_paths = {path for path, _, _ in target}
    different = {path for path, _, _ in base ^ target}
    add = different - base_paths
    remove = different - target_paths
    # What a hard link points to may have been replaced.
    links = {path for path, kind, fingerprint in base & target
             if kind == "file" and fingerprint[3] == tarfile.LNKTYPE}
    return add, remove, (different - add - remove) | links


def link_target(entry):
    """The path that a hard link points to."""
    if entry.linkname.startswith("system/"):
        return entry.linkname
    return posixpath.normpath(posixpath.join(posixpath.dirname(entry.name), entry.linkname))


def same_content(base, target, old, new):
    """Whether two entries have the same bytes; a hard link has those of its target."""
    with base.extractfile(old) as one, target.extractfile(new) as other:
        while True:
            piece = one.read(1 << 20)
            if piece != other.read(1 << 20):
                return False
            if not piece:
                return True


def is_dropped(base, target, old, new):
    """Whether a modified entry has not really changed."""
    if old.isdir() or new.isdir():
        return False
    owners = (old.mode, old.devmajor, old.devminor, old.uid, old.gid)
    if owners != (new.mode, new.devmajor, new.devminor, new.uid, new.gid):
        return False
    if old.islnk() or new.islnk():
        readable = all(entry.islnk() or entry.isreg() for entry in (old, new))
        return readable and old.mtime == new.mtime and same_content(base, target, old, new)
    if (old.type, old.size) != (new.type, new.size):
        return False
    if old.issym():
        return old.linkname == new.linkname
    return old.isreg() and same_content(base, target, old, new)


def emit(target, delta, entry):
    """Copies an entry as it is."""
    if entry.isreg():
        with target.extractfile(entry) as content:
            delta.addfile(entry, content)
    else:
        delta.addfile(entry)


def write(target, delta, entries, changed, removed):
    """Writes the list of names to remove and what changed, each link behind its target."""
    text = "".join(f"{path}\n" for path in sorted(removed)) or "\n"
    content = text.encode("utf-8", "surrogateescape")
    header = tarfile.TarInfo("removed")
    header.size = len(content)
    header.mtime = int(time.time())
    header.uname = header.gname = "root"
    delta.addfile(header, io.BytesIO(content))
    emitted = set()
    for path in sorted(changed):
        entry = entries[path]
        order = [link_target(entry), path] if entry.islnk() else [path]
        for each in order:
            if each in changed and each not in emitted:
                emit(target, delta, entries[each])
                emitted.add(each)


def main(base_path, target_path, delta_path):
    with tarfile.open(base_path, "r:") as base, tarfile.open(target_path, "r:") as target:
        (old, base_triples), (new, target_triples) = listing(base), listing(target)
        add, remove, modified = candidates(base_triples, target_triples)
        modified = {path for path in modified
                    if not is_dropped(base, target, old[path], new[path])}
        with tarfile.open(delta_path, "w", format=tarfile.GNU_FORMAT) as delta:
            write(target, delta, new, add | modified, remove | modified)


if __name__ == "__main__":
    main(*sys.argv[1:])
