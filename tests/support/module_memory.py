"""What planning remembers of the package's modules; tests that edit them must forget it."""

from implicit_tuning.nodes import code


def forget_modules():
    """Read every module again when it is next asked for."""
    for memory in (code._read_module, code._in_order_of_import, code._digest_with_imports):
        memory.cache_clear()
