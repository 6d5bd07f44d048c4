from .api import Workspace as Workspace
from .candidates import BestOfNOptions as BestOfNOptions
from .evaluating import CompareOptions as CompareOptions
from .evaluating import EvaluateOptions as EvaluateOptions
from .judging import JudgeOptions as JudgeOptions
from .report import ReportOptions as ReportOptions
from .scoring_run import ScoreOptions as ScoreOptions
from .stored_labels import LabelsOptions as LabelsOptions
