"""anyECG Edge: a home gateway that keeps, reads and answers about wearable ECG.

Research software, not a medical device.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("anyecg-edge")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"
