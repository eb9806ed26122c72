"""Data set files of the Hugging Face hub, pinned to a commit and checked against their sha256.

HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and the rest are read by huggingface_hub itself.
"""

import tempfile
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RevisionNotFoundError,
)

from implicit_tuning.digests import file_sha256

LOCAL_COPY = "or take a local copy: in its entry in datasets, give 'path' in place of 'hub'"


class DownloadFailed(RuntimeError):
    """A hub file could not be fetched, or is not the one that was pinned."""


def fetch_hub(repo: str, revision: str, file: str, sha256: str, destination: Path) -> Path:
    """Fetch one file of a data set on the hub.

    Args:
        repo: "owner/name" of the data set.
        revision: commit.
        file: path of the file in the repository.
        sha256: hexadecimal digest that the file must have.
        destination: folder for the file, which keeps its name but not its folders.

    Returns:
        The file, a regular one: the hub's cache may be cleared afterwards.

    Raises:
        DownloadFailed: no access, no such file, hub out of reach, or another content than pinned.
            Nothing is left in `destination`.
    """
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination, prefix=".download-") as folder:
        try:
            # `local_dir` gives a regular file; the cache would give a link into itself.
            fetched = Path(
                hf_hub_download(
                    repo, file, repo_type="dataset", revision=revision, local_dir=folder
                )
            )
        except (HTTPError, LocalEntryNotFoundError) as error:
            # Without the hub's own message: it repeats headers and addresses of the request.
            raise DownloadFailed(_explain(error, repo, revision, file)) from None
        found = file_sha256(fetched)
        if found != sha256:
            raise DownloadFailed(
                f"{repo}/{file} at {revision} has sha256 {found}, but {sha256} is pinned: the file "
                "was changed or damaged, and is not kept. Fetch it again, or look at what changed "
                "and pin the new digest"
            )
        return fetched.replace(destination / fetched.name)


def _explain(error: Exception, repo: str, revision: str, file: str) -> str:
    """What to do about a failed download."""
    # The hub's answer may stand in the cause: huggingface_hub wraps what it does not know.
    answers = (getattr(e, "response", None) for e in (error, error.__cause__))
    status = next((answer.status_code for answer in answers if answer is not None), None)
    page = f"{constants.ENDPOINT}/datasets/{repo}"
    if status in (401, 403):
        return (
            f"no access to {repo} (status {status}): accept its conditions on {page} and set "
            f"HF_TOKEN to a token of that account; {LOCAL_COPY}"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision '{revision}': correct it (commits are listed on {page})"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{repo} has no file '{file}' at {revision}: correct it (see {page}/tree/{revision})"
    if status == 404:
        return f"there is no data set {repo} ({page}): correct the name; {LOCAL_COPY}"
    reason = f"status {status}" if status else type(error.__cause__ or error).__name__
    return (
        f"{repo}/{file}: the hub at {constants.ENDPOINT} could not be reached ({reason}): try "
        f"again with a connection, and without HF_HUB_OFFLINE; {LOCAL_COPY}"
    )
