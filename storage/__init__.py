"""The store: SQLModel tables on SQLite, migrations, and one aspect per part of the data.

Names load when they are first used: SQLAlchemy and SQLModel take a while to import.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
