"""Archives, walked member by member and written again as they were but for what was restored.

Nothing is ever unpacked by its name. What a member is called, what it links to and how large it grows is held
against `Guard` and `Limits` first.
"""

from pipelines.media.packings.packing import Limits, Member, MemberError, PackingError
from pipelines.media.packings.walks import SUFFIXES, walk

__all__ = ["SUFFIXES", "Limits", "Member", "MemberError", "PackingError", "walk"]
