"""Every mode and format becomes RGB with the pixels that a person would see."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from hf_transfer.data.images import to_rgb
from hf_transfer.errors import UserError

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def pixels(image: Image.Image) -> list:
    """Returns the pixels of an RGB picture, row by row."""
    assert image.mode == "RGB"
    return [tuple(pixel) for row in np.asarray(image).tolist() for pixel in row]


def stored(image: Image.Image, kind: str, **options) -> bytes:
    """Returns the picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def from_values(mode: str, values: list) -> Image.Image:
    """Returns a picture of one row."""
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


def near(image: Image.Image, expected: list, tolerance: int) -> bool:
    """Tells whether no channel is further off than `tolerance`."""
    return int(np.abs(np.array(pixels(image)) - np.array(expected)).max()) <= tolerance


# What a camera held each way would store of one scene.
SCENE = np.array([[RED, GREEN], [BLUE, WHITE]], dtype=np.uint8)
STORED_AS = {
    1: SCENE,
    2: SCENE[:, ::-1],
    3: SCENE[::-1, ::-1],
    4: SCENE[::-1],
    5: SCENE.transpose(1, 0, 2),
    6: np.rot90(SCENE),
    7: SCENE.transpose(1, 0, 2)[::-1, ::-1],
    8: np.rot90(SCENE, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation(orientation: int, kind: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = stored(Image.fromarray(np.ascontiguousarray(STORED_AS[orientation])), kind, exif=exif)
    assert pixels(to_rgb(content)) == [RED, GREEN, BLUE, WHITE]


def test_exif_orientation_of_a_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (32, 16), RED)
    wide.paste(GREEN, (0, 0, 16, 16))
    upright = to_rgb(stored(wide, "JPEG", exif=exif, quality=95))
    assert upright.size == (16, 32)
    assert np.abs(np.array(upright.getpixel((8, 4))) - GREEN).max() < 8
    assert np.abs(np.array(upright.getpixel((8, 28))) - RED).max() < 8


def test_exif_orientation_of_an_opened_picture():
    exif = Image.Exif()
    exif[0x0112] = 3
    opened = Image.open(io.BytesIO(stored(from_values("RGB", [GREEN, RED]), "PNG", exif=exif)))
    assert pixels(to_rgb(opened)) == [RED, GREEN]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_parts_become_white(kind: str):
    image = from_values("RGBA", [(255, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 255), (0, 0, 255, 51)])
    content = stored(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    assert pixels(to_rgb(content)) == [RED, WHITE, BLACK, (204, 204, 255)]


def test_grey_with_alpha():
    content = stored(from_values("LA", [(0, 255), (0, 0), (100, 255), (0, 51)]), "PNG")
    assert Image.open(io.BytesIO(content)).mode == "LA"
    assert pixels(to_rgb(content)) == [BLACK, WHITE, (100, 100, 100), (204, 204, 204)]


def palette_picture(mode: str = "P") -> Image.Image:
    """Returns red, green and blue through a palette."""
    image = Image.new(mode, (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    for x in range(3):
        image.putpixel((x, 0), x if mode == "P" else (x, 255 * (x != 1)))
    return image


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_palette(kind: str):
    content = stored(palette_picture(), kind)
    assert Image.open(io.BytesIO(content)).mode == "P"
    assert pixels(to_rgb(content)) == [RED, GREEN, BLUE]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_transparent_colour(kind: str):
    content = stored(palette_picture(), kind, transparency=1)
    assert "transparency" in Image.open(io.BytesIO(content)).info
    assert pixels(to_rgb(content)) == [RED, WHITE, BLUE]


def test_palette_with_an_alpha_for_each_colour():
    content = stored(palette_picture(), "PNG", transparency=bytes([255, 51, 0]))
    assert pixels(to_rgb(content)) == [RED, (204, 255, 204), WHITE]


def test_palette_mode_with_alpha_channel():
    assert pixels(to_rgb(palette_picture("PA"))) == [RED, WHITE, BLUE]


def test_colour_and_grey_that_stand_for_nothing():
    colour = stored(from_values("RGB", [RED, (1, 2, 3)]), "PNG", transparency=(1, 2, 3))
    assert pixels(to_rgb(colour)) == [RED, WHITE]
    grey = stored(from_values("L", [10, 20]), "PNG", transparency=20)
    assert pixels(to_rgb(grey)) == [(10, 10, 10), WHITE]
    deep = stored(Image.fromarray(np.array([[0, 1000]], dtype=np.uint16)), "PNG", transparency=1000)
    assert pixels(to_rgb(deep)) == [BLACK, WHITE]


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_premultiplied_alpha(mode: str):
    image = from_values(
        "RGBA" if mode == "RGBa" else "LA", [(0,) * (len(mode) - 1) + (255,), (0,) * (len(mode) - 1) + (0,)]
    )
    assert pixels(to_rgb(image.convert(mode))) == [BLACK, WHITE]


@pytest.mark.parametrize(
    ("ink", "colour"),
    [((0, 255, 255, 0), RED), ((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), BLACK), ((0, 0, 0, 0), WHITE)],
)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str, ink: tuple, colour: tuple):
    content = stored(Image.new("CMYK", (8, 8), ink), kind, **({"quality": 100} if kind == "JPEG" else {}))
    # Adobe's JPEG files hold the inks inverted; a reader that misses that shows a negative.
    assert (b"Adobe" in content) == (kind == "JPEG")
    assert near(to_rgb(content), [colour] * 64, tolerance=2)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_cut_off(kind: str):
    content = stored(Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)), kind)
    assert pixels(to_rgb(content)) == [BLACK, (1, 1, 1), (128, 128, 128), WHITE]


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B", "I;16L", "I;16N"])
def test_16_bit_grey_in_every_mode(mode: str):
    image = Image.new(mode, (3, 1))
    for x, value in enumerate((0, 32896, 65535)):
        image.putpixel((x, 0), value)
    assert pixels(to_rgb(image)) == [BLACK, (128, 128, 128), WHITE]


def test_32_bit_grey_file():
    content = stored(from_values("I", [0, 32896, 65535]), "TIFF")
    assert Image.open(io.BytesIO(content)).mode == "I"
    assert pixels(to_rgb(content)) == [BLACK, (128, 128, 128), WHITE]


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 0.2, 0.4], [0, 51, 102]),
        ([-1.0, 50.0, 100.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([0.0, 0.2, float("inf")], [0, 51, 255]),
        ([float("nan")] * 3, [0, 0, 0]),
    ],
)
def test_floating_point(values: list[float], grey: list[int]):
    content = stored(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert Image.open(io.BytesIO(content)).mode == "F"
    assert pixels(to_rgb(content)) == [(level,) * 3 for level in grey]


def test_single_channel_and_one_bit():
    assert pixels(to_rgb(stored(from_values("L", [0, 77, 255]), "PNG"))) == [BLACK, (77, 77, 77), WHITE]
    one_bit = stored(from_values("1", [0, 255]), "PNG")
    assert Image.open(io.BytesIO(one_bit)).mode == "1"
    assert pixels(to_rgb(one_bit)) == [BLACK, WHITE]


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX"])
def test_other_colour_spaces(mode: str):
    colours = [RED, GREEN, BLUE, (30, 200, 90)]
    # One of 256 steps of hue is up to six levels of a colour.
    assert near(to_rgb(from_values("RGB", colours).convert(mode)), colours, tolerance=6 if mode == "HSV" else 2)


def test_lab():
    colours = [RED, (30, 200, 90)]
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(from_values("RGB", colours), *profiles, outputMode="LAB")
    content = stored(lab, "TIFF")
    assert Image.open(io.BytesIO(content)).mode == "LAB"
    assert near(to_rgb(content), colours, tolerance=6)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame(kind: str):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(content)).n_frames == 2
    assert pixels(to_rgb(content)) == [RED] * 16


def test_everything_that_a_picture_may_come_as(tmp_path: Path):
    path = tmp_path / "red.png"
    path.write_bytes(stored(Image.new("RGB", (1, 1), RED), "PNG"))
    content = path.read_bytes()
    for given in (
        content,
        path,
        str(path),
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(path)},
        {"bytes": content, "path": "a name that is no file"},
        Image.new("RGB", (1, 1), RED),
    ):
        assert pixels(to_rgb(given)) == [RED]


def test_the_given_picture_stays_as_it_is():
    image = from_values("RGB", [RED])
    to_rgb(image).putpixel((0, 0), GREEN)
    assert image.getpixel((0, 0)) == RED


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.6])
def test_a_file_cut_short_is_named(tmp_path: Path, kind: str, share: float):
    content = stored(NOISE, kind)
    path = tmp_path / "cut short.img"
    path.write_bytes(content[: int(len(content) * share)])
    with warnings.catch_warnings():
        # Pillow warns about some of them on the way to its error.
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="cut short.img' cannot be read"):
            to_rgb(path)
        with pytest.raises(UserError, match="'a/b.jpg' cannot be read"):
            to_rgb({"bytes": path.read_bytes(), "path": "a/b.jpg"})


def test_errors_of_rare_formats_are_messages_too():
    # Pillow raises NotImplementedError, a RuntimeError, for a kind of DDS file that it does not know.
    content = bytearray(stored(NOISE, "DDS"))
    content[80:88] = (4).to_bytes(4, "little") + b"ABCD"
    with pytest.raises(NotImplementedError):
        Image.open(io.BytesIO(bytes(content))).load()
    with pytest.raises(UserError, match="cannot be read"):
        to_rgb(bytes(content))


def test_no_picture_at_all(tmp_path: Path):
    with pytest.raises(UserError, match="gone.png' does not exist"):
        to_rgb(tmp_path / "gone.png")
    with pytest.raises(UserError, match="cannot be read"):
        to_rgb(b"hello")


def test_a_picture_too_large_to_be_true(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="bomb.png' cannot be read: .*decompression bomb"):
        to_rgb({"bytes": stored(NOISE, "PNG"), "path": "bomb.png"})
