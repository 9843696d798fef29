"""Two classes of solids as ModelNet40 comes: boxes that are long, and pyramids that are high."""

from __future__ import annotations

from pathlib import Path

CLASSES = ("box", "pyramid")
_BOX_FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))


def write_off(path: Path, corners: list[tuple[float, float, float]], faces: list[tuple[int, ...]]) -> Path:
    """An OFF file whose first two lines are one, as some of ModelNet's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"OFF{len(corners)} {len(faces)} 0"]
    lines += [" ".join(map(str, corner)) for corner in corners]
    lines += [" ".join(map(str, (len(face), *face))) for face in faces]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_box(path: Path, length: float = 3.0) -> Path:
    corners = [(x * length, y, z) for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)]
    return write_off(path, corners, list(_BOX_FACES))


def write_pyramid(path: Path, height: float = 2.0) -> Path:
    corners = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.5, 0.5, height)]
    return write_off(path, corners, [(0, 1, 2, 3), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)])


def write_classes(folder: Path) -> Path:
    """Three objects a class to test on, and one to learn from that nobody asks for."""
    for number in range(3):
        write_box(folder / "box" / "test" / f"box_{number}.off", 2.0 + number)
        write_pyramid(folder / "pyramid" / "test" / f"pyramid_{number}.off", 1.0 + number)
    write_box(folder / "box" / "train" / "box_9.off")
    return folder
