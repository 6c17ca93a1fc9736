"""A sample of a storage backend that honours ``multipath=True``, for the lab.

The specification (enhance-iscsi-multipath) asks for a sample in the LVM iSCSI driver. This is one:
it makes volumes, exports them through LIO and answers as the specification demands. It is written
to be read and to be tested against, not to keep anybody's data.
"""

from backend.sample import BackendError, SampleBackend, SampleVolume
from backend.storage import volume_group

__all__ = ["BackendError", "SampleBackend", "SampleVolume", "volume_group"]
