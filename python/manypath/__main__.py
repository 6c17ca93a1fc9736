# SPDX-License-Identifier: Apache-2.0
"""``python -m manypath``."""

import sys

from manypath.cli import main

sys.exit(main())
