"""Pages of images: every image is there and whole, captions keep to their places, frames are the verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from rl.drawing.layout import CAPTION_SIZE, MOST_SIDE, PAGE, Block, Tile, draw, shown, wrapped
from rl.drawing.pictures import KEPT, before_after, grid, keep_images, kept_images, strips
from rl.drawing.plots import GREEN, GREY, ORANGE

LONG = "a photograph of two red circles above a blue square in the style of a children's book, " * 10


NAN = float("nan")


def plain(index: int, height: int = 32, width: int = 32) -> np.ndarray:
    """An image of one colour, no grey and another for every index below 64."""
    colour = np.array([255, 4 * index, 128], np.uint8)
    return np.broadcast_to(colour, (height, width, 3)).copy()


def pixels(page: np.ndarray, colour: np.ndarray | str) -> np.ndarray:
    """(height, width) bool"""
    wanted = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    return (page == np.asarray(wanted, np.uint8)).all(-1)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """left, top, right, bottom of what is marked, ends not included"""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def assert_whole(page: np.ndarray, images: list[np.ndarray]) -> None:
    """Each is there in one piece, with nothing written over it."""
    for image in images:
        mask = pixels(page, image[0, 0])
        left, top, right, bottom = box(mask)
        assert mask[top:bottom, left:right].all()
        assert (right - left, bottom - top) == shown(image, max(right - left, bottom - top)).size


@pytest.mark.parametrize("size", [32, 100, 1024])
@pytest.mark.parametrize(("prompts", "samples"), [(1, 1), (1, 4), (1, 16), (3, 1), (2, 5), (16, 1)])
def test_a_grid_shows_every_image_whole(tmp_path: Path, prompts: int, samples: int, size: int) -> None:
    images = [plain(index, size, size) for index in range(prompts * samples)]
    rows = [images[start : start + samples] for start in range(0, len(images), samples)]
    for caption in ("two red circles", LONG):
        grid([caption] * prompts, rows, tmp_path / "grid.png")
        page = np.asarray(Image.open(tmp_path / "grid.png"))
        assert_whole(page, images)
        assert page.shape[1] <= 1.2 * PAGE
    grid(["red"] * prompts, rows, tmp_path / "grid.png")
    covered = sum(pixels(np.asarray(Image.open(tmp_path / "grid.png")), image[0, 0]).sum() for image in images)
    height, width, _ = np.asarray(Image.open(tmp_path / "grid.png")).shape
    assert covered > 0.55 * height * width  # the page is not mostly empty


def test_unlike_images_share_a_page(tmp_path: Path) -> None:
    images = [plain(0, 16, 64), plain(1, 64, 16), plain(2, 1024, 512)]
    grid(["wide", "high", "big"], [[image] for image in images], tmp_path / "grid.png")
    assert_whole(np.asarray(Image.open(tmp_path / "grid.png")), images)


def test_small_images_stay_sharp_and_big_ones_are_reduced() -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 24, 3), np.uint8)
    enlarged = np.asarray(shown(image, 200))
    assert enlarged.shape == (192, 144, 3)
    assert np.array_equal(enlarged[::6, ::6], image)
    assert shown(np.zeros((1024, 512, 3), np.uint8), 200).size == (100, 200)


def test_captions_are_wrapped_by_their_measured_width() -> None:
    for text in (LONG, "W" * 300, "iiii " * 100, "two\nlines"):
        lines = wrapped(text, 200, CAPTION_SIZE)
        assert 1 <= len(lines) <= 4
        page = np.asarray(draw([Block(text, [Tile(plain(0))])]))
        left, top, right, _ = box(pixels(page, plain(0)[0, 0]))
        assert (page[:, right:] == 255).all()  # nothing leaves the column
        assert (page[:top, left:right] < 255).any()
    assert wrapped(LONG, 200, CAPTION_SIZE)[-1].endswith("…")
    assert wrapped("short", 200, CAPTION_SIZE) == ["short"]
    assert "…" not in "".join(wrapped("two\nlines", 200, CAPTION_SIZE))


@pytest.mark.parametrize("steps", [1, 10, 28])
def test_a_strip_reads_from_the_first_step_to_the_image(tmp_path: Path, steps: int) -> None:
    images = [plain(index) for index in range(steps + 1)]
    strips(["red"], [images], tmp_path / "strip.png")
    page = np.asarray(Image.open(tmp_path / "strip.png"))
    assert_whole(page, images)
    places = [box(pixels(page, image[0, 0])) for image in images]
    assert sorted(places, key=lambda place: (place[1], place[0])) == places
    below = [page[bottom : bottom + 18, left:right] for left, _, right, bottom in places]
    assert all((label < 200).any() for label in below)  # each is labelled
    if steps > 1:
        assert not np.array_equal(below[0], below[1])


def test_frames_follow_the_verdicts(tmp_path: Path) -> None:
    """With unlike verdicts before and after, of which more are known than images are kept."""
    before, after = [plain(index) for index in range(20)], [plain(20 + index) for index in range(20)]
    keep_images([f"prompt {index}" for index in range(20)], before, tmp_path / "before")
    keep_images([f"prompt {index}" for index in range(20)], after, tmp_path / "after")
    verdicts = np.tile([0.0, 1.0, np.nan, 1.0], 5), np.tile([1.0, 1.0, 0.0, np.nan], 5)
    before_after((tmp_path / "before", tmp_path / "after"), verdicts, tmp_path / "both.png", verdicts=True)
    page = np.asarray(Image.open(tmp_path / "both.png"))
    colours = {0.0: ORANGE, 1.0: GREEN}
    shown_images = [*before[:KEPT], *after[:KEPT]]
    assert_whole(page, shown_images)
    for image, verdict in zip(shown_images, [*verdicts[0][:KEPT], *verdicts[1][:KEPT]], strict=True):
        left, top, right, bottom = box(pixels(page, image[0, 0]))
        frame = page[top - 3 : bottom + 3, left - 3 : right + 3]
        edge = np.ones(frame.shape[:2], bool)
        edge[3:-3, 3:-3] = False
        assert pixels(frame, colours.get(verdict, GREY))[edge].all()
    for old, new in zip(before[:KEPT], after[:KEPT], strict=True):  # side by side
        (_, top, right, _), (left, other_top, _, _) = (box(pixels(page, image[0, 0])) for image in (old, new))
        assert top == other_top
        assert 0 < left - right < 30


def test_rewards_stand_where_there_are_no_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of each image, never a mark of success or failure."""
    drawn: list[tuple[str, list[tuple[str, str | None]]]] = []

    def draw(blocks, title):
        drawn.append((title, [(tile.label, tile.frame) for block in blocks for tile in block.tiles]))
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("rl.drawing.pictures.draw", draw)
    for name in ("before", "after"):
        keep_images(["red", "red"], [plain(0), plain(1)], tmp_path / name)
    rewards = np.array([-0.0012, NAN]), np.array([0.23, 1.0])
    before_after((tmp_path / "before", tmp_path / "after"), rewards, tmp_path / "both.png", verdicts=False)
    ((title, tiles),) = drawn
    assert [label for label, _ in tiles] == ["before -0.001", "after 0.230", "before ?", "after 1.000"]
    assert {frame for _, frame in tiles} == {"#555555"}
    assert not {"✓", "✗"} & set(title)


def test_images_are_kept_without_loss(tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).integers(0, 255, (20, 8, 8, 3), np.uint8))
    keep_images([f"{index}" for index in range(20)], images, tmp_path)
    prompts, kept = kept_images(tmp_path)
    assert prompts == [f"{index}" for index in range(KEPT)]
    assert all(np.array_equal(one, other) for one, other in zip(images[:KEPT], kept, strict=True))


def test_one_image_is_large_enough_to_see(tmp_path: Path) -> None:
    grid(["red"], [[plain(0)]], tmp_path / "one.png")
    assert pixels(np.asarray(Image.open(tmp_path / "one.png")), plain(0)[0, 0]).sum() == MOST_SIDE**2
