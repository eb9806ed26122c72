#!/bin/sh
# What both recipes install, run in a folder with pyproject.toml: its dependencies and the package,
# with the extra that config/paper.yaml needs.
# $1: the index of the torch build to take, as PyTorch's install page names it; empty for pip's own.
set -eu
# The version of torch is pyproject.toml's; only its build is chosen here.
index=$1
torch=$(python -c '
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*[line for line in project["dependencies"] if line.startswith("torch=")])')
python -m pip install --no-cache-dir ${index:+--index-url "$index"} "$torch"
# Editable: the code that runs is the mounted repository's.
python -m pip install --no-cache-dir --editable '.[embeddings]'
