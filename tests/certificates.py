"""Certificates for tests, made by the `openssl` command."""

import shutil
import subprocess

import pytest

NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:elsewhere.test\n"


class Authority:
    """Signs certificates, each a pair of files below `folder`."""

    def __init__(self, folder):
        if shutil.which("openssl") is None:
            pytest.skip("the openssl command, which makes certificates, is not here")
        folder.mkdir()
        self._folder = folder
        self._key = folder / "ca.key"
        self.certificate = folder / "ca.pem"
        _openssl("req", "-x509", "-days", "2", *_new_key("authority", self._key, self.certificate))

    def sign(self, name, days=2, usage=None):
        """Return the paths of a new certificate and its key; days below 0: it has expired.

        `usage`: what alone it is good for, such as clientAuth.
        """
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        request = self._folder / f"{name}.csr"
        extensions = self._folder / f"{name}.extensions"
        extensions.write_text(NAMES + (f"extendedKeyUsage={usage}\n" if usage else ""))
        _openssl("req", *_new_key(name, key, request))
        _openssl(
            *("x509", "-req", "-in", request, "-out", certificate, "-days", str(days)),
            *("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"),
            *("-extfile", extensions),
        )
        return certificate, key


def _new_key(name, key, out):
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    return (*curve, "-keyout", key, "-out", out, "-subj", f"/CN={name}")


def _openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
