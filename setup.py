"""The parts of streamd that are compiled; everything else is said in pyproject.toml.

They are optional: where there is no compiler the Python code does the same, slower.
"""

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-O2", "-Wall", "-Wextra"]
BLAKE3 = ["blake3.c", "blake3_dispatch.c", "blake3_portable.c", "avx2.S", "sse41.c"]
READ = [
    "together.h",
    "cutting.h",
    "gear.h",
    "blake3/blake3.h",
    "blake3/blake3_impl.h",
    "blake3/blake3_avx2_x86-64_unix.S",
    "blake3/blake3_sse41.c",
]
# what is left out is for processors older or rarer than those that the other files are for
PLAIN = [("BLAKE3_NO_SSE2", None), ("BLAKE3_NO_AVX512", None), ("BLAKE3_USE_NEON", "0")]


class Build(build_ext):
    """The usual one, which takes assembler for a source, too."""

    def build_extensions(self) -> None:
        """Build all of them."""
        self.compiler.src_extensions = [*self.compiler.src_extensions, ".S"]
        super().build_extensions()


setup(
    cmdclass={"build_ext": Build},
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
                "streamd/format/cutting.c",
                "streamd/format/together.c",
                *(f"streamd/format/blake3/{name}" for name in BLAKE3),
            ],
            define_macros=PLAIN,
            depends=[f"streamd/format/{name}" for name in READ],
            extra_compile_args=[*FLAGS, "-fvisibility=hidden"],
            optional=True,
        ),
    ],
)
