"""As much of SVG as the pictures need; numbers have one decimal, so that texts can be compared."""

from collections.abc import Sequence
from html import escape

TEAL, ORANGE, VIOLET, GREY, INK = "#00897b", "#f4511e", "#5e35b1", "#90a4ae", "#263238"
PALE = {TEAL: "#e0f2f1", ORANGE: "#fbe9e7", VIOLET: "#ede7f6", GREY: "#eceff1"}
Point = tuple[float, float]


class Picture:
    """A white sheet with rounded corners.

    Args:
        width: In pixels.
        height: In pixels.
        words: What it shows, for those who cannot see it.
    """

    def __init__(self, width: int, height: int, words: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" role="img" font-family="system-ui, sans-serif" font-size="14">',
            f"<title>{escape(words)}</title>",
            f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>',
        ]

    def add(self, part: str) -> None:
        """Adds an element."""
        self._parts.append(part)

    def text(
        self,
        at: Point,
        words: str,
        color: str = INK,
        size: int = 14,
        anchor: str = "middle",
        weight: str = "normal",
    ) -> None:
        """Words around, left or right of a point."""
        self.add(
            f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" fill="{color}" font-size="{size}" '
            f'text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'
        )

    def box(self, corner: Point, size: Point, color: str, words: str, below: str = "") -> None:
        """A rounded box with a name, and what it leaves."""
        (x, y), (width, height) = corner, size
        self.add(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="8" '
            f'fill="{PALE[color]}" stroke="{color}" stroke-width="1.5"/>'
        )
        middle = x + width / 2
        self.text((middle, y + height / 2 + (-3 if below else 5)), words, weight="600")
        if below:
            self.text((middle, y + height / 2 + 15), below, size=11)

    def path(
        self, points: Sequence[Point], color: str, width: float = 2, dash: str = "", end: str = ""
    ) -> None:
        """A line through points; ``end="arrow"`` puts a head at its end."""
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.add(
            f'<polyline points="{drawn}" fill="none" stroke="{color}" '
            f'stroke-width="{width:.1f}" stroke-linejoin="round" stroke-linecap="round"{dashed}/>'
        )
        if end == "arrow":
            self._arrow_head(points[-2], points[-1], color)

    def curve(self, start: Point, control: Point, end: Point, color: str, width: float) -> None:
        """A bent line."""
        (a, b), (c, d), (e, f) = start, control, end
        self.add(
            f'<path d="M{a:.1f},{b:.1f} Q{c:.1f},{d:.1f} {e:.1f},{f:.1f}" fill="none" '
            f'stroke="{color}" stroke-width="{width:.1f}" stroke-linecap="round"/>'
        )

    def disc(self, at: Point, radius: float, color: str, words: str) -> None:
        """A node with its name in it."""
        self.add(
            f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:.1f}" fill="{PALE[color]}" '
            f'stroke="{color}" stroke-width="1.5"/>'
        )
        self.text((at[0], at[1] + 4), words, size=12, weight="600")

    def area(self, points: Sequence[Point], color: str) -> None:
        """A filled shape."""
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.add(f'<polygon points="{drawn}" fill="{color}" fill-opacity="0.18"/>')

    def _arrow_head(self, before: Point, end: Point, color: str) -> None:
        dx, dy = end[0] - before[0], end[1] - before[1]
        length = (dx * dx + dy * dy) ** 0.5
        ux, uy = 7 * dx / length, 7 * dy / length
        corners = [end, (end[0] - ux - uy / 2, end[1] - uy + ux / 2)]
        corners.append((end[0] - ux + uy / 2, end[1] - uy - ux / 2))
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        self.add(f'<polygon points="{drawn}" fill="{color}"/>')

    def __str__(self) -> str:
        return "\n".join([*self._parts, "</svg>"]) + "\n"


class Axes:
    """A frame with a scale on both sides.

    Args:
        picture: Where it is drawn.
        corner: Upper left corner.
        size: Width and height.
        x: Bounds from left to right.
        y: Bounds from below to above.
    """

    def __init__(self, picture: Picture, corner: Point, size: Point, x: Point, y: Point) -> None:
        self._picture, self._corner, self._size, self._x, self._y = picture, corner, size, x, y

    def at(self, x: float, y: float) -> Point:
        """Where a value lies on the sheet."""
        (left, top), (width, height) = self._corner, self._size
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        return left + width * across, top + height * (1 - up)

    def frame(
        self, title: str, across: str, ticks_x: Sequence[float], ticks_y: Sequence[float]
    ) -> None:
        """Draws grid, numbers and words."""
        (left, top), (width, height) = self._corner, self._size
        for value in ticks_y:
            _, y = self.at(self._x[0], value)
            self._picture.path([(left, y), (left + width, y)], PALE[GREY], 1)
            self._picture.text((left - 8, y + 4), f"{value:g}", size=11, anchor="end")
        for value in ticks_x:
            x, _ = self.at(value, self._y[0])
            self._picture.text((x, top + height + 18), f"{value:g}", size=11)
        self._picture.path([(left, top + height), (left + width, top + height)], GREY, 1)
        self._picture.text((left, top - 16), title, anchor="start", weight="600")
        self._picture.text((left + width / 2, top + height + 38), across, size=12)

    def line(self, points: Sequence[Point], color: str, width: float = 2, dash: str = "") -> None:
        """A curve through values."""
        self._picture.path([self.at(x, y) for x, y in points], color, width, dash)

    def band(self, points: Sequence[tuple[float, float, float]], color: str) -> None:
        """What lies between two curves: values of x, below and above."""
        above = [self.at(x, high) for x, _, high in points]
        below = [self.at(x, low) for x, low, _ in reversed(points)]
        self._picture.area([*above, *below], color)

    def label(self, x: float, y: float, words: str, color: str, anchor: str = "start") -> None:
        """Words beside a value."""
        across, down = self.at(x, y)
        self._picture.text((across, down + 4), words, color, 12, anchor, "600")
