"""The parts of streamd that are compiled; everything else is said in pyproject.toml.

They are optional: where there is no compiler the Python code does the same, slower.
"""

from setuptools import Extension, setup

FLAGS = ["-O2", "-Wall", "-Wextra"]
BLAKE3 = ["blake3", "blake3_dispatch", "blake3_portable", "avx2", "sse41"]
READ = [
    f"blake3/{name}" for name in ("blake3.h", "blake3_impl.h", "blake3_avx2.c", "blake3_sse41.c")
]
# what is left out is for processors older or rarer than those that the other files are for
PLAIN = [("BLAKE3_NO_SSE2", None), ("BLAKE3_NO_AVX512", None), ("BLAKE3_USE_NEON", "0")]

setup(
    ext_modules=[
        Extension(
            "streamd.sources.filesystem._bulk",
            ["streamd/sources/filesystem/bulk.c"],
            extra_compile_args=FLAGS,
            optional=True,
        ),
        Extension(
            "streamd.format._batch",
            [
                "streamd/format/batch.c",
                "streamd/format/together.c",
                *(f"streamd/format/blake3/{name}.c" for name in BLAKE3),
            ],
            define_macros=PLAIN,
            depends=[f"streamd/format/{name}" for name in ("together.h", *READ)],
            extra_compile_args=[*FLAGS, "-fvisibility=hidden"],
            optional=True,
        ),
    ]
)
