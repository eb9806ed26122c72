"""Build docs/api/ from the docstrings of the library: `make docs`."""

from pathlib import Path

import pdoc

import implicit_tuning


def build_api(folder: Path) -> None:
    """Write the pages of what `implicit_tuning` exports."""
    for name in implicit_tuning.__all__:  # pdoc sees only what has been fetched
        setattr(implicit_tuning, name, getattr(implicit_tuning, name))
    pdoc.render.configure(docformat="google", show_source=False, search=False)
    pdoc.pdoc("implicit_tuning", output_directory=folder)


if __name__ == "__main__":
    build_api(Path(__file__).parent / "api")
