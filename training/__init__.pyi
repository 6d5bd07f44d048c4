from .base import find_family as find_family
from .config import TrainableFamily as TrainableFamily
from .config import TrainConfig as TrainConfig
from .trainer import BEST as BEST
from .trainer import CHECKPOINTS as CHECKPOINTS
from .trainer import Trained as Trained
from .trainer import Training as Training
from .trainer import train_prm as train_prm
