"""Instance files: one module a format, and the table of formats in `solvers.io.formats`."""
