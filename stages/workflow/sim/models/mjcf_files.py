"""MJCF files as they are found: the files that one names, and what MuJoCo refuses of it though its meaning is plain."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

_NAMED = {
    "mesh": ("file",), "hfield": ("file",), "skin": ("file",), "model": ("file",),
    "texture": ("file", "fileright", "fileleft", "fileup", "filedown", "filefront", "fileback"),
}  # fmt: skip


def files_with_parts(paths: Iterable[Path]) -> list[Path]:
    """The files, and those that the MJCF files among them name, in order and none twice; only files that exist.

    Source: MJCF's `compiler` (meshdir, texturedir, assetdir, strippath) and `include`, as MuJoCo's XML reference says.
    """
    found: dict[Path, None] = {}
    pending = list(paths)[::-1]
    while pending:
        path = pending.pop()
        if path in found or not path.is_file():
            continue
        found[path] = None
        if path.suffix.lower() == ".xml":
            pending += _named_by(path)[::-1]
    return list(found)


def _named_by(path: Path) -> list[Path]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:
        return []  # MuJoCo says what is wrong with it
    settings: dict[str, str] = {}
    for compiler in root.iter("compiler"):
        settings |= compiler.attrib
    strip = settings.get("strippath") == "true"
    named = [path.parent / element.attrib["file"] for element in root.iter("include") if "file" in element.attrib]
    for tag, keys in _NAMED.items():
        kind = "texturedir" if tag == "texture" else "meshdir"
        folder = path.parent / (settings.get(kind) or settings.get("assetdir") or "")
        for element in root.iter(tag):
            texts = [element.attrib[key] for key in keys if key in element.attrib]
            named += [folder / (Path(text).name if strip else text) for text in texts]
    return named


def mended_text(path: Path, radians: bool) -> str | None:
    """The text of an MJCF file as it is meant; None where that is how MuJoCo reads it anyway.

    Of assets of one kind and name the first is kept, and a `default` has no other attribute than its class.
    radians: angles are radians where the file does not say what they are (MuJoCo takes degrees then).
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError):
        return None  # MuJoCo says what is wrong with it
    mended = False
    taken: set[tuple[str, str]] = set()
    for assets in root.iter("asset"):
        for element in list(assets):
            name = element.get("name")
            if name is not None and (element.tag, name) in taken:
                assets.remove(element)
                mended = True
            elif name is not None:
                taken.add((element.tag, name))
    for default in root.iter("default"):
        for key in set(default.attrib) - {"class"}:
            del default.attrib[key]
            mended = True
    if radians and not any("angle" in compiler.attrib for compiler in root.iter("compiler")):
        root.insert(0, ElementTree.Element("compiler", angle="radian"))
        mended = True
    return ElementTree.tostring(root, encoding="unicode") if mended else None
