"""GA4GH refget v2 sequence digests: what a contig is, whatever its name.

The digest is SHA-512 over the upper-case sequence, its first 24 bytes in base64url, after "SQ."
(GA4GH refget 2.0.0, section "sequence identifiers"; the sha512t24u form of GA4GH VRS).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable


def refget_digest(chunks: Iterable[bytes]) -> str:
    """The "SQ." digest of a sequence given in chunks of any size and case, without line ends."""
    sha = hashlib.sha512()
    for chunk in chunks:
        sha.update(chunk.upper())
    return "SQ." + base64.urlsafe_b64encode(sha.digest()[:24]).decode("ascii")
