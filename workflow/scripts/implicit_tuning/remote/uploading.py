"""Sending a folder to the Hugging Face hub as a repository of a model.

The token comes from HF_TOKEN alone. What the hub or its library says of a failure is never repeated,
since it can hold addresses that are signed: messages are ours.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import logging

from implicit_tuning.nodes.digests import file_sha256

# The file by which a repository is known as one that was sent from here.
PROVENANCE_FILE = "provenance.json"
# What the hub puts into a repository by itself.
OF_THE_HUB = {".gitattributes"}
EXISTS = 409


class UploadFailed(RuntimeError):
    """Nothing, or not all, was sent; the message says what to do."""


def require_token() -> str:
    """The token of the environment.

    Raises:
        UploadFailed: there is none, or it holds characters that no token has.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise UploadFailed("HF_TOKEN is not set: set it to a token of the hub that may write")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise UploadFailed("HF_TOKEN holds characters that no token has: correct it")
    return token


def upload(folder: Path, repo: str, public: bool, message: str) -> str:
    """Make the repository hold what the folder holds, and nothing else; returns the commit's address.

    A repository that is not there is made. An upload that broke off is taken up by the same call.

    Raises:
        UploadFailed: no access, another repository of this name, the hub out of reach, or what
            arrived is not what was sent.
    """
    api = HfApi(token=require_token())
    logging.set_verbosity_error()  # its warnings name signed addresses
    with _explaining(repo):
        _open_repository(api, repo, public)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message, delete_patterns=["*"]
        )
        sent = api.model_info(repo, revision=commit.oid, files_metadata=True)
        _require_arrived(folder, sent, repo)
    return commit.commit_url


def _open_repository(api: HfApi, repo: str, public: bool) -> None:
    """Make the repository, or see that the one that exists is ours to change."""
    try:
        api.create_repo(repo, private=not public)
        return
    except HfHubHTTPError as error:
        if error.response.status_code != EXISTS:
            raise
    found = api.model_info(repo)
    files = {file.rfilename for file in found.siblings or ()}
    if PROVENANCE_FILE not in files and not files <= OF_THE_HUB:
        raise UploadFailed(
            f"REPO: '{repo}' exists and was not published from here (it has no {PROVENANCE_FILE}): choose "
            "another name"
        )
    if found.private == public:
        now, asked = ("private", "PUBLIC=1") if found.private else ("public", "no PUBLIC=1")
        raise UploadFailed(
            f"REPO: '{repo}' exists and is {now}, but {asked} was given: change one of the two"
        )


def _require_arrived(folder: Path, sent: ModelInfo, repo: str) -> None:
    arrived = {file.rfilename: file for file in sent.siblings or ()}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        file = arrived.get(path.relative_to(folder).as_posix())
        same = file is not None and file.size == path.stat().st_size
        stored = file.lfs if file is not None else None
        if not same or (stored is not None and stored.sha256 != file_sha256(path)):
            raise UploadFailed(
                f"{repo}: {path.name} did not arrive as it was sent: run the same command again"
            )


@contextmanager
def _explaining(repo: str) -> Iterator[None]:
    try:
        yield
    except UploadFailed:
        raise
    except Exception as error:  # noqa: BLE001 - libraries of three kinds raise what they like
        raise UploadFailed(_explain(error, repo)) from None


def _explain(error: BaseException, repo: str) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo}: HF_HUB_OFFLINE is set: unset it to publish"
    status = _status(error)
    if status == 401:
        return f"{repo}: the hub does not know this token (status 401): correct HF_TOKEN"
    if status == 403:
        return (
            f"{repo}: this token may not write there (status 403): take one with write access for "
            f"'{repo.partition('/')[0]}', or another REPO"
        )
    if status is not None and status < 500 and status not in (408, 429):
        return f"{repo}: the hub refuses it (status {status}): check REPO, then run `make publish` again"
    reason = f"status {status}" if status else type(error).__name__
    return (
        f"{repo}: the upload to {constants.ENDPOINT} broke off ({reason}): run the same command "
        "again; what has arrived is not sent twice"
    )


def _status(error: BaseException | None) -> int | None:
    """Status of the hub's answer, which can stand behind another error."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return response.status_code
        error = error.__cause__
    return None
