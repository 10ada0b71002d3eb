"""The one part of streamd that is compiled; everything else is said in pyproject.toml.

It is optional: where there is no compiler the Python code does the same, slower.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "streamd.sources.filesystem._bulk",
            ["streamd/sources/filesystem/bulk.c"],
            extra_compile_args=["-O2", "-Wall", "-Wextra"],
            optional=True,
        )
    ]
)
