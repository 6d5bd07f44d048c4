from .again import RetryOptions as RetryOptions
from .agreeing import ConsensusOptions as ConsensusOptions
from .api import Workspace as Workspace
from .continuing import ContinueOptions as ContinueOptions
from .judging import JudgeOptions as JudgeOptions
from .page import label as label
from .planning import PlanOptions as PlanOptions
from .sampling import SampleOptions as SampleOptions
