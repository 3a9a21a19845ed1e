"""An update of a tree by bsdiff, file by file.

    bsdiff_files.py make OLD NEW PATCHES
    bsdiff_files.py apply OLD PATCHES NEW

A file of the new tree that is in the old one costs nothing, one that changed is a patch by `bsdiff` from
the file of the same name (with runs of digits made equal, since modules move to a folder with each
version of the kernel), and what is new is carried whole. Names, modes and times are left out.
"""

import concurrent.futures
import filecmp
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys


def files(tree):
    """All regular files below a tree, by their paths in it."""
    for folder, _, names in os.walk(tree):
        for name in names:
            path = pathlib.Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(tree))


def make(old, new, patches):
    patches.mkdir()
    by_shape = {re.sub("[0-9]+", "0", path): path for path in sorted(files(old))}
    plan = {}

    def one(at, path):
        counterpart = path if (old / path).is_file() else by_shape.get(re.sub("[0-9]+", "0", path))
        if counterpart is not None and not (old / counterpart).stat().st_size:
            # bsdiff finds no memory for nothing.
            counterpart = None
        out = patches / str(at)
        if counterpart is None:
            shutil.copyfile(new / path, out)
            return path, None, at
        if filecmp.cmp(old / counterpart, new / path, shallow=False):
            return path, counterpart, None
        subprocess.run(["bsdiff", old / counterpart, new / path, out], check=True)
        return path, counterpart, at

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, counterpart, at in pool.map(lambda job: one(*job), enumerate(sorted(files(new)))):
            # What kept its name and its content is not told.
            if at is not None or path != counterpart:
                plan[path] = [counterpart, at]
    (patches / "plan").write_text(json.dumps(plan))


def apply(old, patches, new):
    """Only what changed is made."""
    for path, (counterpart, at) in json.loads((patches / "plan").read_text()).items():
        out = new / path
        out.parent.mkdir(parents=True, exist_ok=True)
        if at is None:
            shutil.copyfile(old / counterpart, out)
        elif counterpart is None:
            shutil.copyfile(patches / str(at), out)
        else:
            subprocess.run(["bspatch", old / counterpart, out, patches / str(at)], check=True)


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    {"make": make, "apply": apply}[command](*map(pathlib.Path, paths))
