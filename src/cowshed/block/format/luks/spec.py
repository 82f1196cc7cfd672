"""A cipher's name taken apart (LUKS1 On-Disk Format 1.2.3, "cipher-name" and "cipher-mode"; LUKS2's are both in one).

Apart from the ciphers themselves, so that the facts of a volume are known without loading them.
"""

from __future__ import annotations

from ....errors import FeatureError

#: known elsewhere, so that the refusal can say it is not a spelling mistake
FOREIGN = frozenset(
    ("anubis", "aria", "blowfish", "camellia", "capi:adiantum", "cast5", "cast6", "des", "des3_ede", "kuznyechik",
     "serpent", "sm4", "twofish", "xchacha12,aes", "xchacha20,aes", "cipher_null", "paes")
)  # fmt: skip

#: the hash of a cipher's IV generator must give a key that AES takes
_AES_KEYS = (16, 24, 32)


class Spec:
    """A cipher's name taken apart: ``name``-``mode``-``iv``[:``iv_hash``] ("aes-xts-plain64", "aes-cbc-essiv:sha256").

    Raises FeatureError for what is not known here.
    """

    __slots__ = ("iv", "iv_hash", "mode", "name")

    def __init__(self, name: str, mode: str, path: str | None = None) -> None:
        word, dash, iv = mode.partition("-")
        if not dash and word != "ecb":
            raise FeatureError(f"Unexpected cipher mode string format '{mode}'", path=path, field="cipher-mode")
        self.name = name
        self.mode = word
        self.iv, _, self.iv_hash = iv.partition(":")
        if name != "aes":
            hint = f"{name} is a cipher of the kernel's that is not here" if name in FOREIGN else None
            raise FeatureError(
                f"Cipher algorithm '{name}' is not supported", path=path, field="cipher-name", value=name, limit="aes",
                hint=hint,
            )  # fmt: skip
        if word not in ("xts", "cbc", "ecb"):
            raise FeatureError(f"Cipher mode '{word}' not supported", path=path, field="cipher-mode", value=mode)
        if dash and self.iv not in ("plain", "plain64", "plain64be", "essiv", "null"):
            raise FeatureError(f"IV generator '{self.iv}' not supported", path=path, field="cipher-mode", value=mode)
        if self.iv == "essiv" and _hash_size(self.iv_hash, path) not in _AES_KEYS:
            raise FeatureError(f"Hash algorithm '{self.iv_hash}' does not make a key of AES for ESSIV", path=path)

    @classmethod
    def parse(cls, text: str, path: str | None = None) -> Spec:
        name, _, mode = text.partition("-")
        return cls(name, mode, path)

    def __str__(self) -> str:
        return f"{self.name}-{self.mode}-{self.iv}" + (f":{self.iv_hash}" if self.iv_hash else "")

    def check_key(self, size: int, path: str | None = None) -> None:
        """FeatureError unless a key of ``size`` bytes fits."""
        if self.mode == "xts" and size % 2:
            raise FeatureError("XTS cipher key length should be a multiple of 2", path=path, value=size)
        each = size // 2 if self.mode == "xts" else size
        if each not in _AES_KEYS:
            raise FeatureError(f"Algorithm 'aes' with key size {each} bytes not supported", path=path, value=size)


def _hash_size(name: str, path: str | None) -> int:
    try:
        from hashlib import new

        return new(name).digest_size
    except ValueError:
        raise FeatureError(f"Hash algorithm '{name}' not supported", path=path, value=name) from None
