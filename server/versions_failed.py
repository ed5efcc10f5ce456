"""Say of each version of a model why it was not loaded, where some of them cannot be."""

from collections.abc import Callable, Collection, Mapping

from server.errors import LoadError, StartError


class VersionsFailed(LoadError):
    """Some of the versions that were to serve cannot be loaded, so none is."""

    def __init__(self, failed: Mapping[str, StartError], wanted: Collection[str]) -> None:
        # What is wrong with the configuration is wrong with every version.
        super().__init__("; ".join(dict.fromkeys(str(error) for error in failed.values())))
        self._failed = failed
        self._wanted = wanted

    def reasons(self, shown: Callable[[str], str]) -> dict[str, str]:
        """The reason of each version, `shown` making a text for clients of it."""
        names = ", ".join(sorted(self._failed, key=int))
        others = f"version {names} cannot be loaded, and versions are loaded all or none"
        return {
            version: shown(str(self._failed[version])) if version in self._failed else others
            for version in self._wanted
        }
