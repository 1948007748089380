"""The version of the program that is running. Imports nothing else of the project, so that the command prints it at once."""

from importlib.metadata import PackageNotFoundError, version

try:
    CODE_VERSION = version("locas-agent")
except PackageNotFoundError:
    CODE_VERSION = "unknown"
