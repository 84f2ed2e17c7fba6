"""Take the picture of a report that the README shows: `python benchmarks/screenshot_report.py OUT/report.html`.

Needs Chromium. The page is opened from disk with the network features of the browser off.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def find_browser() -> str:
    """Path of the first Chromium found; ends the program with a sentence where there is none."""
    for name in BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    raise SystemExit(f"no browser found (looked for {', '.join(BROWSERS)}); install Chromium")


def command(
    browser: str, page: Path, picture: Path, *, profile: str, width: int, height: int, scale: float
) -> list[str]:
    """The browser's command line; width and height in CSS pixels."""
    return [
        browser,
        *FLAGS,
        f"--user-data-dir={profile}",
        f"--window-size={width},{height}",
        f"--force-device-scale-factor={scale:g}",
        f"--screenshot={picture.resolve()}",
        page.resolve().as_uri(),
    ]


def screenshot(page: Path, picture: Path, *, width: int = 1200, height: int = 1500, scale: float = 1.0) -> None:
    """Write the top `height` CSS pixels of `page` as PNG."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        line = command(find_browser(), page, picture, profile=profile, width=width, height=height, scale=scale)
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    # Chromium may end with 0 without having written anything.
    if done.returncode != 0 or not picture.exists():
        raise SystemExit(f"the browser wrote no picture (exit code {done.returncode}): {done.stderr[-500:]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Write the picture of a report.html as PNG.")
    parser.add_argument("report", type=Path, help="report.html of a finished run")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/demo-report.png"), help="default: %(default)s")
    parser.add_argument("--width", type=int, default=1200, help="CSS pixels, default %(default)s")
    parser.add_argument("--height", type=int, default=1500, help="CSS pixels, default %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="picture pixels per CSS pixel, default %(default)s")
    given = parser.parse_args(arguments)
    if not given.report.is_file():
        raise SystemExit(f"no report at {given.report}; name the report.html of a finished run")
    screenshot(given.report, given.output, width=given.width, height=given.height, scale=given.scale)
    sys.stdout.write(f"{given.output}\n")


if __name__ == "__main__":
    main()
