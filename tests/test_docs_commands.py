"""Every command that README and docs show in a `console` block runs, in the order of its page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(text: str) -> list[str]:
    """The lines after `$` of the console blocks; what a command prints stands below it and is not compared."""
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    # A backslash at the end of a line continues it.
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


SHOWN = {str(page.relative_to(ROOT)): found for page in PAGES if (found := commands(page.read_text(encoding="utf-8")))}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the pages speak of: `photos` in two classes, `new-photos` alike, `strange-photos` noise."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    gradient = np.linspace(0, 200, 32)
    for name, count in (("photos/across", 200), ("photos/down", 200), ("new-photos", 40), ("strange-photos", 40)):
        (folder / name).mkdir(parents=True)
        pattern = gradient[:, None] if name.endswith("down") else gradient[None, :]
        for index in range(count):
            pixels = random.integers(0, 56, (32, 32, 3)) + pattern[..., None]
            if name == "strange-photos":
                pixels = random.integers(0, 256, (32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:03d}.png")
    return folder


def test_commands_are_found_in_their_blocks() -> None:
    first = "```console\n$ mood a \\\n    --b\nwhat it prints\n$ mood c\n```\n"
    text = first + "```sh\nmood d\n```\n" + "```console\n$ mood e\n```\n"
    assert commands(text) == ["mood a      --b", "mood c", "mood e"]
    assert "README.md" in SHOWN


@pytest.mark.parametrize("page", SHOWN)
def test_every_command_of_a_page_runs(page: str, images: Path, tmp_path: Path) -> None:
    for folder in images.iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in SHOWN[page]:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
