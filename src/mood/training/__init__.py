"""How to optimise any module: loop, schedule, averaged weights, checkpoint and resume. Knows nothing of images."""

from mood.training.draws import seed_everything, uniform
from mood.training.loop import Optimisation, Task, train

__all__ = ["Optimisation", "Task", "seed_everything", "train", "uniform"]
