"""How to optimise any module: loop, schedule, averaged weights, checkpoint and resume. Knows nothing of images."""

from mood.training.batch_norm import check_divisible
from mood.training.draws import seed_everything, uniform
from mood.training.loop import DivisibleTask, Task, train
from mood.training.optimisation import Optimisation
from mood.training.processes import Processes, Share, Strategy, check_strategy, processes

__all__ = [
    "DivisibleTask",
    "Optimisation",
    "Processes",
    "Share",
    "Strategy",
    "Task",
    "check_divisible",
    "check_strategy",
    "processes",
    "seed_everything",
    "train",
    "uniform",
]
