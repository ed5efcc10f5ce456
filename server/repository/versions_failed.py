"""The error of a load in which some versions failed, with a reason for each version."""

from collections.abc import Callable, Collection, Mapping

from server.errors import LoadError, StartError


class VersionsFailed(LoadError):
    """Some of the versions that were to serve cannot be loaded, so none is."""

    def __init__(self, failed: Mapping[str, StartError], wanted: Collection[str]) -> None:
        # A fault of the configuration concerns every version.
        super().__init__("; ".join(dict.fromkeys(str(error) for error in failed.values())))
        self._failed = failed
        self._wanted = wanted

    def reasons(self, shown: Callable[[str], str]) -> dict[str, str]:
        """The reason of each version; `shown` makes a text for clients of it."""
        names = ", ".join(sorted(self._failed, key=int))
        others = f"version {names} cannot be loaded, and versions are loaded all or none"
        return {
            version: shown(str(self._failed[version])) if version in self._failed else others
            for version in self._wanted
        }
