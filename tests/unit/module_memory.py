"""What planning remembers of the package's modules; tests that edit them must forget it."""

from implicit_tuning import nodes


def forget_modules():
    """Read every module again when it is next asked for."""
    for memory in (nodes._read_module, nodes._in_order_of_import, nodes._digest_with_imports):
        memory.cache_clear()
