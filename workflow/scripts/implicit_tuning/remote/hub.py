"""Requests to the Hugging Face hub: patient while it is busy, clear when it refuses.

HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and the rest are read by huggingface_hub itself.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from huggingface_hub import HfApi, HfFileSystem, constants, hf_hub_url
from huggingface_hub.errors import (
    HTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import (
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    parse_ratelimit_headers,
)
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)

logger = logging.getLogger(__name__)

LOCAL_COPY = "or take a local copy: give 'path' in place of 'hub' in its entry"
# Statuses of a server that is busy or passes through a fault.
PASSING = frozenset({408, 429, 500, 502, 503, 504})
# Status of a request for what stands behind the end of a file: all of it has come.
NOTHING_LEFT = 416
TRIES = 6
BACKOFF = wait_exponential(multiplier=1.0, max=30.0)  # seconds
# The hub counts requests in windows of five minutes. Who asks for more is asked by the next run.
LONGEST_RETRY_AFTER_S = 300.0
STREAM_CHUNK_BYTES = 2**16

Result = TypeVar("Result")


class HubFailed(RuntimeError):
    """What was asked for could not be had from the hub, or is not what was pinned."""


@dataclass(frozen=True)
class HubPlace:
    """A repository at a revision, or a file of it.

    `repo` is "owner/name", `revision` a branch, tag or commit, `file` a path in the repository;
    None is the repository itself.
    """

    kind: Literal["datasets", "models"]
    repo: str
    revision: str
    file: str | None = None

    @property
    def page(self) -> str:
        """Address of the repository for people."""
        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'datasets' else ''}{self.repo}"

    @property
    def url(self) -> str:
        """Address of the file's bytes."""
        assert self.file is not None  # a repository has none
        return hf_hub_url(
            self.repo, self.file, repo_type=self.kind.removesuffix("s"), revision=self.revision
        )

    def __str__(self) -> str:
        return self.repo if self.file is None else f"{self.repo}/{self.file}"


# --- requests -----------------------------------------------------------------------------------


def list_files(place: HubPlace) -> tuple[str, Mapping[str, RepoSibling]]:
    """The commit that a revision is now, and its files by name.

    Raises:
        HubFailed: no access, no such repository or revision, or hub out of reach.
    """
    info: Any = patiently(
        lambda: HfApi().repo_info(
            place.repo,
            revision=place.revision,
            repo_type=place.kind.removesuffix("s"),
            files_metadata=True,
        ),
        place,
    )
    return info.sha, {file.rfilename: file for file in info.siblings}


def download(place: HubPlace, unfinished: Path) -> None:
    """Fetch a file, going on behind the bytes that `unfinished` already has.

    hf_hub_download does not serve: it throws away what it has when its process ends.

    Raises:
        HubFailed: no access, no such file, or hub out of reach. The bytes that came are kept.
    """

    def request() -> None:
        with unfinished.open("ab") as file:
            try:
                http_get(
                    place.url,
                    file,
                    resume_size=file.tell(),
                    headers=_headers(),
                    displayed_filename=place.file,
                )
            except HTTPError as error:
                if _status(error) != NOTHING_LEFT:
                    raise

    patiently(request, place)


def stream(place: HubPlace, take: Callable[[Iterator[bytes]], Result]) -> Result:
    """What `take` makes of the first bytes of a file; no more is sent than it asks for.

    When the connection breaks, `take` is called anew, with the first bytes again.

    Raises:
        HubFailed: no access, no such file, or hub out of reach.
    """

    def request() -> Result:
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        session = get_session()
        with session.stream("GET", place.url, headers=_headers(), timeout=timeout) as response:
            hf_raise_for_status(response)
            return take(response.iter_bytes(STREAM_CHUNK_BYTES))

    return patiently(request, place)


@contextmanager
def open_file(place: HubPlace) -> Iterator[BinaryIO]:
    """A file of the hub that fetches what is read of it, for formats that are read in parts."""
    try:
        system = HfFileSystem()
        with system.open(f"{place.kind}/{place.repo}/{place.file}", revision=place.revision) as f:
            yield f
    except FileNotFoundError as error:
        # The hub's answer stands behind it, if it was one.
        raise (error.__cause__ or HubFailed(_no_file(place))) from None


def _headers() -> dict[str, str]:
    token = os.environ.get("HF_TOKEN", "")
    if not (token.isascii() and token.isprintable()):
        raise HubFailed("HF_TOKEN holds characters that no token has: correct it")
    # The place at which a compressed answer was cut says nothing about where to go on.
    return {**build_hf_headers(), "Accept-Encoding": "identity"}


# --- patience -----------------------------------------------------------------------------------


def patiently(request: Callable[[], Result], place: HubPlace) -> Result:
    """The result of a request, which is made again after passing faults.

    Raises:
        HubFailed: says what to do. Nothing in it repeats headers or signed addresses.
    """
    tries = Retrying(
        retry=retry_if_exception(_is_passing),
        stop=stop_after_attempt(TRIES),
        wait=lambda state: max(BACKOFF(state), _asked_pause(_failure(state))),
        before_sleep=lambda state: _log_pause(state, place),
        reraise=True,
    )
    try:
        return tries(request)
    except (HTTPError, OfflineModeIsEnabled) as error:
        raise HubFailed(_explain(error, place)) from None


def _is_passing(error: BaseException) -> bool:
    status = _status(error)
    if status is None:
        # A cut connection, a time-out, a name that is not found: no answer at all.
        return isinstance(error, HTTPError)
    return status in PASSING and _asked_pause(error) <= LONGEST_RETRY_AFTER_S


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


def _asked_pause(error: BaseException) -> float:
    """Seconds that the hub asks to wait; 0 where it does not say."""
    response = getattr(error, "response", None)
    if response is None:
        return 0.0
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else 0.0


def _log_pause(state: RetryCallState, place: HubPlace) -> None:
    reason = _reason(_failure(state))
    logger.warning("%s: %s; next try in %.0f s", place, reason, state.upcoming_sleep)


def _failure(state: RetryCallState) -> BaseException:
    assert state.outcome is not None  # asked after a try
    error = state.outcome.exception()
    assert error is not None  # that failed
    return error


def _reason(error: BaseException) -> str:
    status = _status(error)
    return f"status {status}" if status else type(error).__name__


def _explain(error: Exception, place: HubPlace) -> str:
    """What to do about a request that failed for good."""
    repo, revision, page, status = place.repo, place.revision, place.page, _status(error)
    if status in (401, 403):
        return (
            f"no access to {repo} (status {status}): check the name, accept its conditions on "
            f"{page} and set HF_TOKEN to a valid token of that account; {LOCAL_COPY}"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision '{revision}': correct it (see {page}/commits/main)"
    if isinstance(error, RemoteEntryNotFoundError):
        return _no_file(place)
    if status == 404:
        what = "data set" if place.kind == "datasets" else "model"
        return f"there is no {what} {repo} ({page}): correct the name; {LOCAL_COPY}"
    if status == 429:
        return (
            f"{place}: the hub has too many requests from here (status 429; it asks to wait "
            f"{_asked_pause(error):.0f} s): try again then, with HF_TOKEN set for a higher limit"
        )
    return (
        f"{place}: the hub at {constants.ENDPOINT} could not be reached ({_reason(error)}): try "
        f"again with a connection, and without HF_HUB_OFFLINE; {LOCAL_COPY}"
    )


def _no_file(place: HubPlace) -> str:
    return (
        f"{place.repo} has no file '{place.file}' at {place.revision}: correct it (see "
        f"{place.page}/tree/{place.revision})"
    )
