"""A certificate authority for tests, and what it signs."""

import pathlib
import subprocess


def openssl(*arguments: str):
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


class Authority:
    def __init__(self, folder: pathlib.Path, name="ca"):
        self.folder = folder
        self.name = name
        self.certificate = folder / f"{name}.crt"
        self.key = folder / f"{name}.key"
        openssl("req", "-x509", *self._new_key(self.key), "-out", str(self.certificate), "-days",
                "2", "-subj", f"/CN={name}")

    @staticmethod
    def _new_key(path):
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                str(path))

    def sign(self, name: str, days=2) -> tuple[pathlib.Path, pathlib.Path]:
        """A certificate for localhost and its key; expired where `days` is negative."""
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        openssl("req", *self._new_key(key), "-out", str(request), "-subj", f"/CN={name}")
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey",
                str(self.key), "-CAcreateserial", "-days", str(days), "-extfile", str(extensions),
                "-out", str(certificate))
        return certificate, key


def install(pair, folder: pathlib.Path) -> tuple[str, ...]:
    """Puts a certificate and its key where a server's flags say; returns those flags."""
    for source, name in zip(pair, ("tls.crt", "tls.key")):
        new = folder / f"{name}.new"
        new.write_bytes(pathlib.Path(source).read_bytes())
        new.rename(folder / name)
    return f"--tls-cert={folder}/tls.crt", f"--tls-key={folder}/tls.key"
