"""Whether a model directory, whoever made it, is safe to load."""

from pathlib import Path

from titlegen.errors import TitlegenError
from titlegen.models import check_safe
from titlegen.tensors import INDEX, weight_map
from titlegen.verify.check import Check, none_wrong

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib"}


def check_foreign(directory: Path) -> list[Check]:
    """Check that a directory, whoever made it, can be loaded without running code or leaving it."""
    wrong = []
    root = directory.resolve()
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            wrong.append(f"{name} is a link that leaves the directory")
        elif path.suffix in _PICKLES:
            wrong.append(f"{name} can hold pickled code")
        elif path.suffix == ".py":
            wrong.append(f"{name} is code")
    try:
        shards = sorted(set(weight_map(directory).values())) if (directory / INDEX).is_file() else []
        outside = [f"{INDEX} names a path outside of it: {name!r}" for name in shards if Path(name).name != name]
        wrong += outside
        if not outside:
            check_safe(directory)
    except TitlegenError as error:
        wrong.append(str(error))
    return [none_wrong("files.safe", f"{directory.name}: links, pickles, code, auto_map, paths", wrong)]
