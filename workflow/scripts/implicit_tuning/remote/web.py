"""A file at an address of the web, fetched whole or not at all."""

import http.client
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from tenacity import Retrying, stop_after_attempt, wait_exponential
from tqdm import tqdm

from implicit_tuning.nodes.files import unique_suffix

CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = 60
TRIES = 3
BACKOFF = wait_exponential(multiplier=0.5, max=10.0)  # seconds


class FetchFailed(RuntimeError):
    """A file could not be fetched; the message names address and reason."""


def fetch_url(address: str, destination: Path) -> None:
    """Fetch what lies at an http(s) address, in a few tries; size and progress are printed.

    Raises:
        FetchFailed: no answer, another status than success, or less than was announced. Nothing is
            left at `destination`.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    unfinished = destination.with_name(f".{destination.name}.{unique_suffix()}")
    try:
        for attempt in Retrying(stop=stop_after_attempt(TRIES), wait=BACKOFF, reraise=True):
            with attempt:
                _fetch(address, unfinished)
        unfinished.replace(destination)
    except (OSError, http.client.HTTPException) as error:
        reason = f"status {error.code}" if hasattr(error, "code") else error
        raise FetchFailed(
            f"{address} could not be fetched ({reason}): correct the address, try again, or give a "
            "local copy"
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)


def is_address(text: str) -> bool:
    """Whether a text is an http(s) address."""
    return urlsplit(text).scheme in ("http", "https")


def file_name(address: str) -> str:
    """The last part of an address's path; empty where it has none."""
    return Path(urlsplit(address).path).name


def _fetch(address: str, destination: Path) -> None:
    with (
        urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer,
        destination.open("wb") as file,
    ):
        length = answer.headers.get("Content-Length")
        total = int(length) if length else None
        size = f"{total / 1e6:.1f} MB" if total else "of unknown size"
        print(f"fetching {address}, {size}")
        with tqdm(total=total, unit="B", unit_scale=True, desc=destination.name) as bar:
            while block := answer.read(CHUNK_BYTES):
                file.write(block)
                bar.update(len(block))
        if total is not None and bar.n != total:
            raise http.client.IncompleteRead(b"", total - bar.n)
