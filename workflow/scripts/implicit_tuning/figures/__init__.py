"""The figures of an experiment, a module each with one `draw`; `style` says how they look."""
