"""The far side of a shared folder: what is written there, and the worker that trains from it."""

from evergreen.job.far.attendance import attend
from evergreen.job.far.news import News, Training
from evergreen.job.far.worker import Terms, Worker

__all__ = ["News", "Terms", "Training", "Worker", "attend"]
