"""The teacher's likeliest tokens on disk, as an alternative to a teacher that runs along."""

from edgerazor.distill.teacher_cache.read import CachedTeacherCollator, TeacherCache
from edgerazor.distill.teacher_cache.write import CacheReport, cache_teacher

__all__ = ["CacheReport", "CachedTeacherCollator", "TeacherCache", "cache_teacher"]
