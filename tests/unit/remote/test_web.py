"""A file at an address comes whole or not at all, from a real server."""

import http.server
import threading

import pytest

from implicit_tuning.remote.web import FetchFailed, fetch_url, file_name, is_address

CONTENT = b"x" * 100_000


class Files(http.server.BaseHTTPRequestHandler):
    """Serves /whole.txt, /cut.txt (half of what it announces) and 404 for all else."""

    def do_GET(self):
        if self.path not in ("/whole.txt", "/cut.txt"):
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/whole.txt" else CONTENT[: len(CONTENT) // 2])

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_is_fetched_and_its_size_told(served, tmp_path, capsys):
    fetch_url(f"{served}/whole.txt", tmp_path / "sub" / "copy.txt")
    assert (tmp_path / "sub" / "copy.txt").read_bytes() == CONTENT
    assert "0.1 MB" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "reason"), [("cut.txt", "IncompleteRead"), ("no.txt", "404")])
def test_less_than_the_whole_file_leaves_nothing(served, tmp_path, name, reason):
    with pytest.raises(FetchFailed, match=rf"{name} could not be fetched \(.*{reason}"):
        fetch_url(f"{served}/{name}", tmp_path / "copy.txt")
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FetchFailed, match="127.0.0.1:9/x could not be fetched .* try again"):
        fetch_url("http://127.0.0.1:9/x", tmp_path / "copy.txt")


def test_addresses_and_their_file_names():
    assert is_address("https://example.org/a/b.json?raw=1")
    assert not is_address("results/a.json")
    assert file_name("https://example.org/a/b.json?raw=1") == "b.json"
    assert file_name("https://example.org") == ""
