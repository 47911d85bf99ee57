"""The teacher's likeliest tokens on disk, as an alternative to a teacher that runs along."""

from edgerazor.distill.teacher_cache.read import CachedTeacherCollator, TeacherCache
from edgerazor.distill.teacher_cache.write import CacheResult, cache_teacher

__all__ = ["CacheResult", "CachedTeacherCollator", "TeacherCache", "cache_teacher"]
