"""Draw docs/images/architecture.svg: the layers are those of the import contract in pyproject.toml."""

import re
import tomllib
from pathlib import Path

DOCS = Path(__file__).resolve().parent
DRAWING = DOCS / "images" / "architecture.svg"
WIDTH, MARGIN, GAP = 960, 30, 10
LAYER_HEIGHT, LAYER_STEP = 38, 50
INK, GREY, LINE = "#1f2d3d", "#44546a", "#8497b0"
COLOURS = ("#dbe7f5", "#e8e4f6", "#f3e6f2", "#e0f1f4", "#e3effa", "#d9f0e3", "#fdeccb", "#fbe0d6", "#ececf3", "#e4e4e4")
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif" \
font-size="15" role="img" aria-labelledby="title description">
  <title id="title">Architecture of CryoGAN</title>
  <desc id="description">Layers of modules with imports pointing down, and the way of the data from particles to \
report.</desc>
  <defs>
    <marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">
      <path d="M0 0 L10 5 L0 10 z" fill="{grey}"/>
    </marker>
  </defs>
  <rect width="{width}" height="{height}" fill="#ffffff"/>
"""


def layers() -> list[list[str]]:
    """Return the names of the modules in each layer of the contract, from the top."""
    (contract,) = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [re.findall(r"cryogan\.(\w+)", layer) for layer in contract["layers"]]


def text(x: float, y: float, words: str, size: int = 15, colour: str = INK, *, title: bool = False) -> str:
    """Return a line of text: centred on x, or a title that begins there."""
    look = 'font-weight="bold"' if title else 'text-anchor="middle"'
    return f'  <text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" {look}>{words}</text>\n'


def box(x: float, y: float, width: float, height: float, colour: str, name: str, *notes: str) -> str:
    """Return a named box with smaller lines below its name."""
    shape = f'  <rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6" fill="{colour}"'
    parts = [f'{shape} stroke="{LINE}"/>\n', text(x + width / 2, y + 25, name)]
    parts += [text(x + width / 2, y + 44 + 17 * line, note, 12, GREY) for line, note in enumerate(notes)]
    return "".join(parts)


def arrow(path: str) -> str:
    """Return an arrow along an SVG path."""
    return f'  <path d="{path}" fill="none" stroke="{GREY}" stroke-width="1.5" marker-end="url(#tip)"/>\n'


def draw_layers(top: float) -> str:
    """Return a row of boxes for each layer, with arrows from row to row."""
    parts, rows = [], layers()
    for index, names in enumerate(rows):
        y, width = top + index * LAYER_STEP, (WIDTH - 2 * MARGIN - GAP * (len(names) - 1)) / len(names)
        for column, name in enumerate(names):
            parts.append(box(MARGIN + column * (width + GAP), y, width, LAYER_HEIGHT, COLOURS[index], name))
        if index + 1 < len(rows):
            parts.append(arrow(f"M{WIDTH / 2:.0f} {y + LAYER_HEIGHT} v{LAYER_STEP - LAYER_HEIGHT}"))
    return "".join(parts)


def draw_data(y: float) -> str:
    """Return the way of the data, from particles to report."""
    data, learning, half = COLOURS[7], COLOURS[6], COLOURS[5]
    return "".join(
        [
            box(30, y, 150, 74, data, "particles", "real images, CTFs", "STAR, .cs, MRC"),
            box(30, y + 122, 150, 74, data, "physics", "y = C S P x + n", "equation (1)"),
            box(270, y + 56, 190, 84, learning, "critic", "matching: equation (iii)", "wasserstein: Figure 5"),
            box(530, y + 60, 130, 76, half, "half maps", "x of half 1,", "x of half 2"),
            box(710, y + 60, 105, 76, learning, "validation", "align, mask,", "FSC"),
            box(850, y + 60, 80, 76, learning, "report", "figures,", "page"),
            arrow(f"M180 {y + 37} H225 V{y + 84} H270"),
            arrow(f"M180 {y + 159} H225 V{y + 112} H270"),
            arrow(f"M105 {y + 74} V{y + 122}"),
            arrow(f"M460 {y + 98} H530"),
            arrow(f"M595 {y + 136} V{y + 222} H105 V{y + 196}"),
            arrow(f"M660 {y + 98} H710"),
            arrow(f"M815 {y + 98} H850"),
            text(225, y + 30, "real", 12, GREY),
            text(226, y + 176, "simulated", 12, GREY),
            text(142, y + 102, "CTFs, noise", 12, GREY),
            text(495, y + 90, "step", 12, GREY),
            text(365, y + 216, "the current map x is simulated again", 12, GREY),
        ]
    )


def drawing() -> str:
    """Return the whole drawing."""
    top = 52
    bottom = top + len(layers()) * LAYER_STEP + 28
    parts = [
        HEAD.format(width=WIDTH, height=bottom + 260, grey=GREY),
        text(MARGIN, 34, "Layers: imports point down", 18, title=True),
        draw_layers(top),
        text(MARGIN, bottom, "The way of the data", 18, title=True),
        draw_data(bottom + 20),
    ]
    return "".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    DRAWING.write_text(drawing())
