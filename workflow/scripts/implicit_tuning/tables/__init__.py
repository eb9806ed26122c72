"""The tables of an experiment, a module each with one `build`; `layout` says what a table is."""
