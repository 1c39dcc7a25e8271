"""Generates the contracts when the distribution is built: `import tinyo.v1.container_pb2`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class GenerateContracts(build_py):
    """Runs protoc over every contract, into the folder that becomes the wheel."""

    def run(self) -> None:
        from grpc_tools import protoc  # only the build has it

        super().run()
        out = Path(self.build_lib)
        protos = sorted(str(path.relative_to(HERE)) for path in HERE.glob("tinyo/**/*.proto"))
        flags = [f"--{kind}_out={out}" for kind in ("python", "mypy", "grpc_python", "mypy_grpc")]
        include = Path(protoc.__file__).parent / "_proto"
        if protoc.main(["protoc", f"-I{HERE}", f"-I{include}", *flags, *protos]) != 0:
            raise SystemExit("protoc failed")
        for folder in {(out / proto).parent for proto in protos}:
            (folder / "py.typed").touch()


setup(cmdclass={"build_py": GenerateContracts})
