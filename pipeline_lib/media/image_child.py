"""Reads one image with Pillow and writes it to standard output: run as a script, in a limited child.

Usage: `python -I image_child.py FILE MAX_PIXELS [HEIGHT WIDTH]`. Output: one line of JSON, then, where a
size is given, the image resized to just cover it and its centre cut out, as raw RGB.
`python -I image_child.py FILE MAX_PIXELS OUTPUT` instead writes an animation as lossless video.
What only some images need is imported there, because one such process runs for every image.
"""

from __future__ import annotations

import io
import json
import sys
from fractions import Fraction
from typing import Any

from PIL import Image, ImageOps

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "GIF", "MPO")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def convert_animation(path: str, max_pixels: int, output: str) -> None:
    """Rewrites an animated picture as lossless video with its own time stamps, which every ffmpeg reads."""
    try:
        with Image.open(path, formats=("WEBP", "PNG")) as image:
            if image.width * image.height > max_pixels:
                _reply({"error": f"{image.width}x{image.height} pixels: more than {max_pixels:,}"})
                return
            _write_video(image, output)
    except (OSError, SyntaxError, ValueError, MemoryError) as error:
        _reply({"error": f"{type(error).__name__}: {error}"})
        return
    _reply({})


def _write_video(image: Image.Image, output: str) -> None:
    import av
    import numpy as np
    from PIL import ImageSequence

    with av.open(output, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=Fraction(1000), width=image.width, height=image.height)
        stream.pix_fmt, stream.time_base = "bgra", Fraction(1, 1000)
        milliseconds = 0
        for picture in ImageSequence.Iterator(image):
            frame = av.VideoFrame.from_ndarray(np.asarray(picture.convert("RGBA")), format="rgba")
            frame.pts, frame.time_base = milliseconds, Fraction(1, 1000)
            milliseconds += max(1, round(picture.info.get("duration", 100)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main(arguments: list[str]) -> None:
    """Reads, turns upright, flattens, converts and, if asked, fits the image."""
    path, max_pixels = arguments[0], int(arguments[1])
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                _reply({"error": f"{image.width}x{image.height} pixels: more than {max_pixels:,}"})
                return
            if len(arguments) > 2 and image.format == "JPEG":
                # A far larger JPEG decodes at a half or a quarter: twice the wanted size is kept.
                longest = 2 * max(int(arguments[2]), int(arguments[3]))
                original = image.size
                image.draft("RGB", (longest, longest))
            else:
                original = image.size
            facts, picture = _upright_rgb(image, original)
    except (OSError, SyntaxError, ValueError, MemoryError) as error:
        _reply({"error": f"{type(error).__name__}: {error}"})
        return
    _reply(facts)
    if len(arguments) > 2:
        height, width = int(arguments[2]), int(arguments[3])
        fitted = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        sys.stdout.buffer.write(fitted.tobytes())


def _upright_rgb(image: Image.Image, original: tuple[int, int]) -> tuple[dict[str, Any], Image.Image]:
    notes: list[str] = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"the first of {frames} pictures in the file is used")
    facts = {"container": image.format or "", "codec": image.mode, "bit_depth": _bit_depth(image)}
    orientation = image.getexif().get(0x0112, 1)
    image.load()
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    picture = _in_srgb(_flattened(_eight_bit(upright), notes), profile, notes)
    turned = orientation in (5, 6, 7, 8)
    width, height = original[::-1] if turned else original
    rotation = {3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}.get(orientation, 0)
    return facts | {"width": width, "height": height, "rotation": rotation, "notes": notes}, picture


def _bit_depth(image: Image.Image) -> int:
    if image.mode in _SIXTEEN_BIT:
        return 16
    return 16 if any("16" in str(tile[3]) for tile in getattr(image, "tile", ())) else 8


def _eight_bit(image: Image.Image) -> Image.Image:
    """Pillow's own conversion of 16-bit grey clips at 255 where it should scale."""
    if image.mode in _SIXTEEN_BIT:
        import numpy as np

        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it as 8-bit PNG or JPEG")
    return image


def _flattened(image: Image.Image, notes: list[str]) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layered = image.convert("RGBA")
    lowest, _ = layered.getchannel("A").getextrema()
    if lowest == 255:
        return layered.convert("RGB")
    notes.append("transparent parts put on white")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")


def _in_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    if not profile:
        return image.convert("RGB")
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip()
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        notes.append("its colour profile cannot be used and was ignored")
        return image.convert("RGB")
    if "srgb" not in name.lower():
        notes.append(f"colours converted from {name[:40]} to sRGB")
    return converted if converted is not None else image.convert("RGB")


def _reply(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        convert_animation(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        main(sys.argv[1:])
    sys.stdout.buffer.flush()
