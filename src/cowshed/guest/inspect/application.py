"""One installed package, in the words of inspect-list-applications2."""

from __future__ import annotations


class Application:
    """Strings, "" where the package database says nothing; ``epoch`` a number."""

    __slots__ = (
        "arch", "description", "display_name", "epoch", "install_path", "name", "publisher", "release",
        "source_package", "summary", "trans_path", "url", "version",
    )  # fmt: skip

    def __init__(self, name: str, version: str = "", release: str = "", epoch: int = 0, arch: str = "") -> None:
        self.name = name
        self.display_name = ""
        self.epoch = epoch
        self.version = version
        self.release = release
        self.arch = arch
        self.install_path = ""
        self.trans_path = ""
        self.publisher = ""
        self.url = ""
        self.source_package = ""
        self.summary = ""
        self.description = ""

    def __repr__(self) -> str:
        return f"<Application {self.name} {self.epoch}:{self.version}-{self.release} {self.arch}>"

    def fields(self, version: int = 2) -> list[tuple[str, str]]:
        """(field, value) of the struct application2 (or application) in its order."""
        prefix = "app2_" if version == 2 else "app_"
        names = ["name", "display_name", "epoch", "version", "release"]
        if version == 2:
            names.append("arch")
        names += ["install_path", "trans_path", "publisher", "url", "source_package", "summary", "description"]
        rows = [(prefix + name, str(getattr(self, name))) for name in names]
        if version == 2:
            rows += [(f"app2_spare{index}", "") for index in range(1, 5)]
        return rows
