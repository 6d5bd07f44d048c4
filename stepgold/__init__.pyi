from .api import Workspace as Workspace
from .judging import JudgeOptions as JudgeOptions
