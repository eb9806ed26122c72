"""Sending a folder to the hub: a server on loopback, and the real huggingface_hub."""

import pytest
from huggingface_hub import constants

from hub_uploads import CUT, LARGE_BYTES, READER, TOKEN, Repository, UploadHub
from implicit_tuning.remote.uploading import PROVENANCE_FILE, UploadFailed, require_token, upload

REPO = "owner/name"
FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    PROVENANCE_FILE: b"{}",
    "model.safetensors": bytes(LARGE_BYTES),
}


@pytest.fixture
def hub(monkeypatch):
    with UploadHub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def refused(folder, public=False):
    with pytest.raises(UploadFailed) as failure:
        upload(folder, REPO, public, "a message")
    assert TOKEN not in str(failure.value)
    return str(failure.value)


def test_a_repository_is_made_and_filled(hub, folder):
    address = upload(folder, REPO, public=False, message="a message")
    sent = hub.repositories[REPO]
    assert sent.private
    assert {name: sent.files[name] for name in FILES} == FILES
    assert sent.commits[0]["summary"] == "a message"
    assert address == f"{hub.url}/{REPO}/commit/{1:040d}"


def test_the_hub_may_take_all_files_as_small_ones(hub, folder, monkeypatch):
    """The way of huggingface_hub with Xet, but for Xet's storage of large files."""
    monkeypatch.setattr("hub_uploads.LARGE_BYTES", 10**9)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    upload(folder, REPO, public=True, message="a message")
    assert not hub.repositories[REPO].private
    assert {name: hub.repositories[REPO].files[name] for name in FILES} == FILES


def test_another_repository_of_that_name_is_left_alone(hub, folder):
    hub.repositories[REPO] = Repository(private=True, files={"model.bin": b"of others"})
    assert f"REPO: '{REPO}' exists and was not published from here" in refused(folder)
    assert hub.repositories[REPO].files == {"model.bin": b"of others"}


def test_an_earlier_publication_is_replaced_whole(hub, folder):
    earlier = {
        PROVENANCE_FILE: b"{...}",
        "model-00002-of-00002.safetensors": b"old",
        ".gitattributes": b"*",
    }
    hub.repositories[REPO] = Repository(private=True, files=earlier)
    upload(folder, REPO, public=False, message="a message")
    assert hub.repositories[REPO].files == {**FILES, ".gitattributes": b"*"}


@pytest.mark.parametrize("private", [False, True])
def test_who_may_see_it_is_never_changed_silently(hub, folder, private):
    hub.repositories[REPO] = Repository(private=private)
    now = "private" if private else "public"
    assert f"exists and is {now}, but" in refused(folder, public=private)
    assert hub.repositories[REPO].commits == []


def test_what_did_not_arrive_whole_is_no_success(hub, folder):
    hub.spoils = "model.safetensors"
    assert "model.safetensors did not arrive as it was sent" in refused(folder)


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("/repos/create", 401, "does not know this token (status 401): correct HF_TOKEN"),
        ("/repos/create", 403, "may not write there (status 403): take one with write access"),
        ("/repos/create", 404, "the hub refuses it (status 404): check REPO"),
        ("/validate-yaml", 400, "the hub refuses it (status 400)"),
        ("/storage/", 403, "may not write there"),
        ("/commit/", 502, "broke off (status 502): run the same command again"),
        ("/commit/", CUT, "broke off (RemoteProtocolError): run the same command again"),
    ],
)
def test_faults_are_told_with_what_to_do(hub, folder, fault, status, message):
    hub.faults[fault] = status
    assert message in refused(folder)


@pytest.mark.parametrize("token", ["hf_unknown", READER])
def test_a_token_that_may_not_write_sends_nothing(hub, folder, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    assert token not in refused(folder)
    assert hub.repositories == {}


def test_an_offline_process_says_so(hub, folder, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set: unset it" in refused(folder)


@pytest.mark.parametrize("token", ["", "  ", "hf_two words", "hf_ü"])
def test_a_token_that_is_none_is_refused(monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UploadFailed, match="HF_TOKEN"):
        require_token()
