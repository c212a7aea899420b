"""What of ShapeStacks lies in a folder: its files unpacked, or its archives."""

from __future__ import annotations

from pathlib import Path

from sri_cli.errors import SriError

ARCHIVE = "shapestacks-{}.tar.gz"
ROOMS = ("splits", "recordings")


def find_originals(folder: Path) -> Path:
    """The folder that holds splits/ and recordings/, or the archives; SriError with what lacks.

    `folder` may be that folder, the one above it, or the one with the archives.
    """
    archives = {
        kind: path
        for kind in ("meta", "rgb", "iseg")
        if (path := folder / ARCHIVE.format(kind)).is_file()
    }
    roots = [place for place in (folder / "shapestacks", folder) if rooms_in(place)]
    for root in roots:
        if len(rooms_in(root)) == len(ROOMS):
            check_maps_unpacked(root, archives.get("iseg"))
            return root
    if "meta" in archives and "rgb" in archives:
        commands = " && ".join(f"tar -xzf {path} -C {folder}" for path in archives.values())
        raise SriError(f"the archives in {folder} are not unpacked", f"unpack them: {commands}")
    raise incomplete(folder, archives, roots)


def rooms_in(place: Path) -> list[str]:
    """Which of splits/ and recordings/ there are."""
    return [room for room in ROOMS if (place / room).is_dir()]


def check_maps_unpacked(root: Path, iseg: Path | None) -> None:
    """SriError when the maps were left in their archive: the masks would silently be missing."""
    if iseg is None or (root / "iseg").is_dir():
        return
    first = next((place for place in (root / "recordings").iterdir() if place.is_dir()), None)
    if first is None or any(file.suffix == ".map" for file in first.iterdir()):
        return
    raise SriError(
        f"the pictures in {root} are unpacked, the instance maps are not",
        f"unpack them too: tar -xzf {iseg} -C {root.parent}",
    )


def incomplete(folder: Path, archives: dict[str, Path], roots: list[Path]) -> SriError:
    """What to raise for a folder that holds a part, or nothing."""
    if roots:
        there = rooms_in(roots[0])[0]
        wanted = "rgb" if there == "splits" else "meta"
        lacks = next(room for room in ROOMS if room != there)
        packed = archives.get(wanted)
        if packed:
            hint = f"unpack it too: tar -xzf {packed} -C {roots[0].parent}"
        else:
            hint = f"it comes with {ARCHIVE.format(wanted)}; either all unpacked or all archives"
        return SriError(f"{roots[0]} has {there}/ but no {lacks}/", hint)
    if archives:
        wanted = "meta" if "meta" not in archives else "rgb"
        what = "the split lists" if wanted == "meta" else "the pictures"
        return SriError(
            f"{folder / ARCHIVE.format(wanted)} is missing: it holds {what}",
            "put it beside the other archives, or have the towers simulated: --from simulate",
        )
    files = [*folder.glob("*.hdf5"), *folder.glob("*.h5")]
    mirrors = sorted(files, key=lambda path: ("shapestacks" not in path.name, path))
    if mirrors:
        return SriError(
            f"{folder} is a folder of data files, not of ShapeStacks' own files",
            f"name the file: --from {mirrors[0]}",
        )
    return SriError(
        f"{folder} holds no ShapeStacks: neither shapestacks/recordings/ nor"
        f" {ARCHIVE.format('rgb')}",
        "name the folder with the original files; pictures of your own: sri prepare folder",
    )
