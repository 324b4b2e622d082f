"""The eight backgrounds, drawn from world coordinates so that a camera can move over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline_lib.world.scene import Backdrop

Array = npt.NDArray[np.float32]
Colour = tuple[float, float, float]


def _flat(colour: Colour) -> Array:
    return np.asarray(colour, dtype=np.float32)


def _blend(low: Array, high: Array, amount: Array) -> Array:
    return low + (high - low) * amount[..., None]


def _step(values: Array, edge: float | Array, softness: float = 0.03) -> Array:
    return np.clip((values - edge) / softness + 0.5, 0.0, 1.0)


def _scatter(cells: Array, phase: float) -> Array:
    # A cheap hash of integers: good enough to vary heights, and the same on every machine.
    return (np.sin(cells * 12.9898 + phase * 78.233) * 43.7585) % 1.0


def _beach(x: Array, y: Array, drop: Backdrop) -> Array:
    shore = drop.horizon + 0.28 + 0.04 * np.sin(4.0 * x + 6.0 * drop.phase)
    sky = _blend(_flat((0.42, 0.74, 0.98)), _flat((0.80, 0.92, 1.0)), np.clip(y + 1.0, 0, 1))
    sea = _blend(sky, _flat((0.10, 0.46, 0.72)), _step(y, drop.horizon))
    return _blend(sea, _flat((0.93, 0.82, 0.56)), _step(y, shore, 0.06))


def _forest(x: Array, y: Array, drop: Backdrop) -> Array:
    leaves = 0.5 + 0.5 * np.sin(5.0 * x + 7.0 * drop.phase) * np.sin(4.0 * y + 3.0 * x)
    wood = _blend(_flat((0.07, 0.26, 0.12)), _flat((0.13, 0.42, 0.17)), leaves)
    spacing = 0.5 + 0.15 * drop.variety
    cell = (x / spacing + drop.phase) % 1.0
    trunk = _step(0.17 - np.abs(cell - 0.5), 0.0, 0.07) * _step(y, -0.55)
    wood = _blend(wood, _flat((0.30, 0.19, 0.10)), trunk)
    return _blend(wood, _flat((0.30, 0.50, 0.18)), _step(y, drop.horizon + 0.45, 0.06))


def _snow(x: Array, y: Array, drop: Backdrop) -> Array:
    hills = drop.horizon + 0.14 * np.sin(2.2 * x + 6.0 * drop.phase)
    sky = _blend(_flat((0.66, 0.78, 0.90)), _flat((0.84, 0.89, 0.95)), np.clip(y + 1.0, 0, 1))
    cell = (x * 1.6 + drop.phase) % 1.0 - 0.5
    tip = hills - 0.45 - 0.15 * drop.variety
    pine = _step((y - tip) * 0.55 - np.abs(cell), 0.0, 0.06) * _step(hills + 0.08 - y, 0.0)
    view = _blend(sky, _flat((0.16, 0.36, 0.32)), pine)
    return _blend(view, _flat((0.93, 0.96, 0.99)), _step(y, hills + 0.06, 0.05))


def _city(x: Array, y: Array, drop: Backdrop) -> Array:
    width = 2.2 + 0.6 * drop.variety
    cells = np.floor(x * width + drop.phase * 5.0)
    height = drop.horizon - 0.25 - 0.6 * _scatter(cells, drop.phase)
    sky = _blend(_flat((0.62, 0.70, 0.80)), _flat((0.86, 0.84, 0.80)), np.clip(y + 1.0, 0, 1))
    shade = 0.28 + 0.18 * _scatter(cells + 7.0, drop.phase)
    wall = shade[..., None] * _flat((1.0, 1.0, 1.12))
    inside = (x * width + drop.phase * 5.0) % 1.0
    window = (np.abs(inside - 0.5) < 0.2) & (np.abs((y * 3.0) % 1.0 - 0.5) < 0.22)
    wall = _blend(wall, _flat((0.90, 0.84, 0.50)), window.astype(np.float32) * 0.8)
    view = sky + (wall - sky) * _step(y, height)[..., None]
    road = _blend(view, _flat((0.36, 0.36, 0.38)), _step(y, drop.horizon + 0.4))
    dash = _step(0.05 - np.abs(y - drop.horizon - 0.62), 0.0) * (((x * 1.5) % 1.0) < 0.5)
    return _blend(road, _flat((0.92, 0.92, 0.85)), dash.astype(np.float32))


def _desert(x: Array, y: Array, drop: Backdrop) -> Array:
    sky = _blend(_flat((0.98, 0.74, 0.42)), _flat((1.0, 0.90, 0.68)), np.clip(y + 1.0, 0, 1))
    far = drop.horizon + 0.16 * np.sin(2.6 * x + 6.0 * drop.phase)
    near = drop.horizon + 0.42 + 0.14 * np.sin(1.9 * x + 9.0 * drop.phase + 2.0)
    sun_x, sun_y = 1.2 * drop.variety - 0.6, -0.68
    sun = _step(0.2 - np.hypot(x - sun_x, y - sun_y), 0.0, 0.05)
    view = _blend(sky, _flat((1.0, 0.98, 0.85)), sun)
    view = _blend(view, _flat((0.80, 0.50, 0.24)), _step(y, far, 0.05))
    return _blend(view, _flat((0.70, 0.40, 0.18)), _step(y, near, 0.05))


def _underwater(x: Array, y: Array, drop: Backdrop) -> Array:
    depth = np.clip(0.5 * (y + 1.0), 0.0, 1.0)
    view = _blend(_flat((0.10, 0.62, 0.72)), _flat((0.02, 0.20, 0.42)), depth)
    rays = np.clip(np.sin(5.0 * (x + 0.45 * y) + 6.0 * drop.phase), 0.0, 1.0) * (1.0 - depth)
    view = view + 0.2 * rays[..., None]
    bend = 0.12 * np.sin(5.0 * y + 6.0 * drop.phase)
    cell = ((x + bend) * 1.3 + drop.variety) % 1.0 - 0.5
    weed = _step(0.09 - np.abs(cell), 0.0, 0.08) * _step(y, drop.horizon + 0.1, 0.1)
    view = _blend(view, _flat((0.05, 0.40, 0.22)), weed)
    return _blend(view, _flat((0.46, 0.48, 0.40)), _step(y, 0.86, 0.08))


def _room(x: Array, y: Array, drop: Backdrop) -> Array:
    stripes = _step(np.sin(9.0 * x + 6.0 * drop.phase), 0.0, 0.6)
    wall = _blend(_flat((0.82, 0.72, 0.66)), _flat((0.90, 0.82, 0.76)), stripes)
    centre = 1.2 * drop.variety - 0.6
    frame = np.maximum(np.abs(x - centre) - 0.34, np.abs(y + 0.5) - 0.3)
    wall = _blend(wall, _flat((0.98, 0.98, 0.98)), _step(-frame, 0.0))
    wall = _blend(wall, _flat((0.62, 0.84, 0.98)), _step(-frame - 0.07, 0.0))
    floor_y = drop.horizon + 0.42
    plank = _step(np.sin((y - floor_y) * 22.0), 0.0, 0.8)
    floor = _blend(_flat((0.50, 0.30, 0.16)), _flat((0.60, 0.38, 0.20)), plank)
    return wall + (floor - wall) * _step(y, floor_y)[..., None]


def _space(x: Array, y: Array, drop: Backdrop) -> Array:
    wave: Array = np.sin(2.0 * x + 1.5 * y + 6.0 * drop.phase)
    haze = 0.5 + 0.5 * wave
    view = _blend(_flat((0.02, 0.02, 0.07)), _flat((0.12, 0.06, 0.22)), haze)
    cells_x, cells_y = np.floor(x * 2.0), np.floor(y * 2.0)
    seed = cells_x * 17.0 + cells_y * 31.0
    star_x = (cells_x + 0.2 + 0.6 * _scatter(seed, drop.phase)) / 2.0
    star_y = (cells_y + 0.2 + 0.6 * _scatter(seed + 3.0, drop.phase)) / 2.0
    star = np.clip(1.7 - 20.0 * np.hypot(x - star_x, y - star_y), 0.0, 1.0)
    view = _blend(view, _flat((0.95, 0.95, 1.0)), star)
    planet_x, planet_y = 1.4 * drop.variety - 0.7, -0.55 + 0.3 * drop.horizon
    distance = np.hypot(x - planet_x, y - planet_y)
    return _blend(view, _flat((0.55, 0.45, 0.40)), _step(0.26 - distance, 0.0, 0.05))


_BACKDROPS: dict[str, Callable[[Array, Array, Backdrop], Array]] = {
    "beach": _beach,
    "forest": _forest,
    "snow": _snow,
    "city": _city,
    "desert": _desert,
    "underwater": _underwater,
    "room": _room,
    "space": _space,
}


def paint_backdrop(backdrop: Backdrop, x: Array, y: Array) -> Array:
    """Paint a background.

    Args:
        backdrop: What to paint.
        x: World coordinates to the right, half frames from the centre.
        y: World coordinates downwards.

    Returns:
        RGB in [0, 1] before light, shape ``x.shape + (3,)``, float32.
    """
    return np.clip(_BACKDROPS[backdrop.name](x, y, backdrop), 0.0, 1.0).astype(np.float32)
